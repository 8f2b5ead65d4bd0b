"""What the pairing of latent noises is learned by: a counterfactual should keep the contours of the reconstruction.

    P = mean over pixels of | c(f(z',t')) − c(f(z,t)) |,    z' = h' + k'·ρ·Rη

c is how strong an edge is, whichever side of it is lighter (`model.contours`). Only the rotation R learns from P: the
rest of the model, asked for the same, would rather have no effect at all (measured: docs/levers.md).
"""

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.model import IntactVAE, ModelOutput, PixelNormal
from civae_core.model.contours import contours
from civae_core.noise_mask import carry
from civae_core.penalties.arms import other_arm
from civae_core.penalties.frozen import call_frozen

SHARE = 4
"""In training, one image in so many is asked about: a rotation has few numbers, and decoding again costs time."""


def pairing_loss(
    model: IntactVAE,
    output: ModelOutput,
    x_BX: Tensor,
    t_BT: Tensor,
    z_BZ: Tensor,
    treatments: tuple[Attribute, ...],
    share: int = SHARE,
) -> Tensor:
    """P [B] of the training pass's draw `z_BZ`; zero for images not asked about, which its mean makes up for.

    Raises:
        ValueError: the model has no pairing.
    """
    if model.pairing is None:
        raise ValueError("the model has no pairing")
    batch = len(x_BX)
    asked = slice(max(batch // share, 1))
    x_BX, t_BT = x_BX[asked], t_BT[asked]
    t_new_BT, _ = other_arm(t_BT, treatments)
    with torch.no_grad():
        old, new = (model.prior_of(x_BX, t).at(z_BZ[asked]) for t in (t_BT, t_new_BT))
        eta_BZ = old.standardise(z_BZ[asked])
        before_BCHW = contours(output.likelihood.mean_BCHW[asked])
    _, z_new_BZ = carry(model.pairing(eta_BZ, t_BT, t_new_BT), old, new, model.latent_mask_width)
    given = (model.standardise_t(t_new_BT), model.standardise_x(x_BX))
    made: PixelNormal = call_frozen(model.decoder, z_new_BZ, *given)  # type: ignore[assignment]
    difference_B = (contours(made.mean_BCHW) - before_BCHW).abs().flatten(1).mean(dim=1)
    return torch.cat([difference_B * (batch / len(difference_B)), z_BZ.new_zeros(batch - len(difference_B))])
