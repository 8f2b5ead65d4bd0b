"""Subjects from the prior, under any treatment. There is no photograph, so nothing is abducted (docs/method.md).

    draw      η ~ N(0,I), the latent noise of a subject with covariates x, under its own treatment t
    act       t ← t'
    predict   z' = h(x,t') + k(x,t')·R(t,t')η;   y' = f(z',t')

This is (M6) without its masks. R is a rotation, so Rη is N(0,I) too, and y' is a draw from p(y|x,t'), as if the
subject had been drawn under t'. ρ and the mask of looks would shrink the noise towards its mean. That is the better
guess about what one photograph no longer shows, but people drawn that way would be too alike.

t is the subject's own treatment, as for a photograph, and not one reference arm for all subjects. With one treatment,
both choices give the same pairs of images. With several, rotations do not add up: going from t to t' by way of a
third arm is not the R(t,t') that was learned.

Shapes: x_BX and t_BT attributes in raw units, eta_BZ standard normal noise, images [B,C,S,S].
"""

import torch
from torch import Tensor

from civae_core.model import IntactVAE


def latents_from_prior(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, eta_BZ: Tensor, own_BT: Tensor | None = None
) -> Tensor:
    """z [B,Z] of subjects under the treatments t, given their noise η under their own treatments.

    Args:
        own_BT: the subjects' own treatments; None if t is their own.
    """
    turned_BZ = eta_BZ if own_BT is None else model.paired(eta_BZ, own_BT, t_BT)
    return model.prior_of(x_BX, t_BT).sample(turned_BZ)


@torch.no_grad()
def decode_prior(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, eta_BZ: Tensor, own_BT: Tensor | None = None
) -> Tensor:
    """Decode `latents_from_prior`: images f(z,t) of subjects that never existed, as decoder means."""
    z_BZ = latents_from_prior(model, x_BX, t_BT, eta_BZ, own_BT)
    return model.decode(z_BZ, t_BT, x_BX).mean_BCHW
