"""The masks of (M6): how much of the abducted noises still holds where the treatment changes things.

Pixels, y' = f(z',t') + τ·m·e:

    none    m = 1
    fade    m = exp(−(a/w)²),  a = max over channels of |f(z',t') − f(z,t)|

Where hair turned grey, the strands and outlines of the old hair are in e, and must not shine through.

Latent dimensions, z' = h(x,t') + k(x,t')·ρ·η:

    ρ = exp(−(d/w)²),  d = |h(x,t') − h(x,t)| / max(k(x,t'), k(x,t)) in each dimension

What the treatment overwrites, a photograph no longer shows: how light the grey is says nothing about the colour
before. Carrying η over pairs two independent noises and doubles their error; without it their mean is predicted.

Looks, the part of z that says how a layered decoder's layers look, in place of f(z',t'):

    q·f(z',t') + (1 − q)·f(z'',t'),  q = exp(−(a/w)²),  z'' as z' with no noise of looks

A latent dimension may say how light hair is in one arm and the other without its prior moving; what it says there is
overwritten all the same, but it also says what shade the wall has. So looks are carried where the image stays. Where
z' = z by definition, without a prior p(z|x,t), nothing is taken from it.

Where nothing changes all masks are 1, so a null intervention still returns the photograph. `benchmarks/masks.py`
compares them by the truth, with others that did no better.
"""

import torch
from torch import Tensor

from civae_core.config.schema import NoiseMask
from civae_core.model.distributions import DiagonalNormal, LatentNormal


def noise_mask(effect_BCHW: Tensor, kind: NoiseMask, width: float) -> Tensor:
    """m in [0,1], [B,1,S,S].

    Args:
        effect_BCHW: f(z',t') − f(z,t) in units of [0,1] images.
        width: w, the change at which 63 % of e is gone, in the same units.
    """
    size_B1HW = effect_BCHW.abs().amax(dim=1, keepdim=True)
    if kind == "none":
        return torch.ones_like(size_B1HW)
    return torch.exp(-(size_B1HW / width).square())


def latent_mask(old: DiagonalNormal, new: DiagonalNormal, width: float | None) -> Tensor:
    """ρ in [0,1], [B,Z], from the priors under t and t'; None is no mask.

    Args:
        width: w, the shift in standard deviations at which 63 % of η is gone.
    """
    if width is None:
        return torch.ones_like(old.mean_BZ)
    shift_BZ = (new.mean_BZ - old.mean_BZ) / torch.maximum(old.std_BZ, new.std_BZ)
    return torch.exp(-(shift_BZ / width).square())


def without(eta_BZ: Tensor, dimensions: slice) -> Tensor:
    """η [B,Z] with 0, the mean of noise, in some dimensions."""
    others_Z = torch.ones(eta_BZ.shape[1], dtype=eta_BZ.dtype, device=eta_BZ.device)
    others_Z[dimensions] = 0
    return eta_BZ * others_Z


def carry(
    eta_BZ: Tensor, old: DiagonalNormal, new: LatentNormal, width: float | None
) -> tuple[DiagonalNormal, Tensor]:
    """The prior under t' along z' = h(x,t') + k(x,t')·ρ·η (M6), and z' [B,Z]; ρ counts as a constant.

    Args:
        eta_BZ: latent noise, abducted under `old`.
        old: the prior under t, along z.
        new: the prior under t'. Each scale of it is given the coarser ones of z'.
        width: of ρ, as for `latent_mask`.
    """

    def masked(part: DiagonalNormal, dimensions: slice) -> Tensor:
        kept_BZ = latent_mask(old.part(dimensions), part, width).detach()
        return part.sample(kept_BZ * eta_BZ[:, dimensions])

    return new.along(masked)
