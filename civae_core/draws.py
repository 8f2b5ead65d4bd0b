"""Subjects from the prior, under any treatment: nobody is photographed, so nothing is abducted (docs/method.md).

    draw      η ~ N(0,I), the latent noise of a subject with covariates x, under its own treatment t
    act       t ← t'
    predict   z' = h(x,t') + k(x,t')·R(t,t')η;   y' = f(z',t')

This is (M6) without its masks. R is a rotation, so Rη is N(0,I) too, and y' a draw from p(y|x,t') as if the subject
had been drawn there. ρ and the mask of looks would shrink noise towards its mean: the better guess about what one
photograph no longer shows, but as draws people too alike.

t is the subject's own, as of a photograph, and not one arm for all. Of one treatment, either gives the same pairs of
images. Of several, turns do not add up: from t to t' by way of a third arm is not the R(t,t') that was learned.

Shapes: x_BX and t_BT attributes in raw units, eta_BZ standard normal noise, images [B,C,S,S].
"""

import torch
from torch import Tensor

from civae_core.model import IntactVAE


def latents_from_prior(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, eta_BZ: Tensor, own_BT: Tensor | None = None
) -> Tensor:
    """z [B,Z] under the treatments t of subjects whose noise is η under treatments of their own.

    Args:
        own_BT: those treatments; None where t is their own.
    """
    turned_BZ = eta_BZ if own_BT is None else model.paired(eta_BZ, own_BT, t_BT)
    return model.prior_of(x_BX, t_BT).sample(turned_BZ)


@torch.no_grad()
def decode_prior(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, eta_BZ: Tensor, own_BT: Tensor | None = None
) -> Tensor:
    """f(z,t) of `latents_from_prior`: images of subjects that never were, decoder means."""
    z_BZ = latents_from_prior(model, x_BX, t_BT, eta_BZ, own_BT)
    return model.decode(z_BZ, t_BT, x_BX).mean_BCHW
