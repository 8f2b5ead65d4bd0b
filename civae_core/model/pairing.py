"""Pairing of latent noises between treatments: a learned rotation of η.

(M4) fixes the distribution of η under each treatment, but not which η of another arm belongs to the same subject:
N(0,I) is invariant to rotation, so the likelihood cannot tell a dark beard that turns white from one that turns into
a bare chin. A prior belief can, without any counterfactual being seen: a treatment recolours more than it redraws. Of
all rotations

    η' = R(t,t')·η,    R(t,t') = exp( Σ_j (d_j(t') − d_j(t))·A_j ),    A_j = −A_jᵀ

the last step of training (`training.pairing`) therefore learns the one under which counterfactuals keep the contours
of the reconstruction. d_j(t) is the dose of treatment j: 0 at the lowest value seen in training, 1 at the highest,
clamped to [0,1] outside. R is orthogonal, so η' is N(0,I), as (M1) requires; R(t,t) is the identity, and R(t',t) is
the inverse of R(t,t').
"""

import numpy as np
import torch
from torch import Tensor, nn

from civae_core.attributes import Attribute
from civae_core.model.precision import full_precision

SQUARINGS, TERMS = 6, 6
"""Six halvings reduce an angle of ten radians to 0.16, for which six terms of the series leave an error of 1e-9."""


class Pairing(nn.Module):
    """Rotations of some dimensions of η, initialised to the identity.

    Args:
        treatments: the T treatments.
        turned: the L dimensions that are rotated; all others keep their noise.
    """

    low_T: Tensor
    span_T: Tensor
    free_TLL: Tensor
    """A_j = free_j − free_jᵀ. A buffer, not a parameter, since the main optimiser must not update it."""

    def __init__(self, treatments: tuple[Attribute, ...], turned: slice) -> None:
        super().__init__()
        self.turned = turned
        length = turned.stop - turned.start
        self.register_buffer("free_TLL", torch.zeros(len(treatments), length, length))
        # Subtract in NumPy: on the meta device, on which shapes are checked first, PyTorch would load its compiler.
        low_T = np.array([attribute.low for attribute in treatments], dtype=np.float32)
        high_T = np.array([attribute.high for attribute in treatments], dtype=np.float32)
        self.register_buffer("low_T", torch.tensor(low_T), persistent=False)
        span_T = high_T - low_T
        span_T[span_T == 0] = 1  # a dose that never varied
        self.register_buffer("span_T", torch.tensor(span_T), persistent=False)

    def forget(self) -> None:
        """Reset all rotations to the identity."""
        self.free_TLL.zero_()

    def forward(self, eta_BZ: Tensor, t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
        """Rotate η [B,Z] under t to η' [B,Z] under t'; treatments [B,T] are in raw units."""
        return self.turn(eta_BZ, self.turns(t_BT, t_new_BT))

    def turn(self, values_BZ: Tensor, turn_BLL: Tensor) -> Tensor:
        """Multiply the rotated dimensions of `values_BZ` by each image's matrix; the others are unchanged."""
        with full_precision(values_BZ.device):
            new_BL = (turn_BLL @ values_BZ[:, self.turned].float()[:, :, None])[:, :, 0]
        before_BZ, after_BZ = values_BZ[:, : self.turned.start], values_BZ[:, self.turned.stop :]
        return torch.cat([before_BZ, new_BL.to(values_BZ.dtype), after_BZ], dim=1)

    def turns(self, t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
        """R(t,t') for each image: [B,L,L], float32."""
        step_BT = self._dose(t_new_BT) - self._dose(t_BT)
        # In half precision or TF32, the errors of repeated squaring would leave little of a rotation.
        with full_precision(t_BT.device):
            skew_TLL = self.free_TLL - self.free_TLL.transpose(1, 2)
            return exponential((step_BT[:, :, None, None] * skew_TLL).sum(dim=1))

    def _dose(self, t_BT: Tensor) -> Tensor:
        return ((t_BT - self.low_T) / self.span_T).clamp(0, 1)


def exponential(m_BLL: Tensor) -> Tensor:
    """Matrix exponential of [B,L,L] by scaling and squaring.

    `torch.linalg.matrix_exp` synchronises with the host to find their norms, and ONNX has no such operator. Products
    avoid both problems.
    """
    scaled_BLL = m_BLL / 2**SQUARINGS
    identity_LL = torch.eye(m_BLL.shape[-1], device=m_BLL.device, dtype=m_BLL.dtype)
    result_BLL = identity_LL.expand_as(m_BLL)
    for term in range(TERMS, 0, -1):
        result_BLL = identity_LL + scaled_BLL @ result_BLL / term
    for _ in range(SQUARINGS):
        result_BLL = result_BLL @ result_BLL
    return result_BLL
