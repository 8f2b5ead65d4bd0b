"""The masks of (M6): how much of each abducted noise to keep where the treatment changes the image.

Pixels, y' = f(z',t') + τ·m·e:

    none    m = 1
    fade    m = exp(−(a/w)²),  a = max over channels of |f(z',t') − f(z,t)|

Where hair turned grey, e contains the strands and outlines of the old hair, which must not shine through.

Latent dimensions, z' = h(x,t') + k(x,t')·ρ·η:

    ρ = exp(−(d/w)²),  d = |h(x,t') − h(x,t)| / max(k(x,t'), k(x,t)) in each dimension

A photograph no longer shows what the treatment overwrites: how light the grey is says nothing about the colour
before. Carrying η over would pair two independent noises and double their error; without η, their mean is predicted.

Looks, the part of z that says how a layered decoder's layers look. The following replaces f(z',t'):

    q·f(z',t') + (1 − q)·f(z'',t'),  q = exp(−(a/w)²),  z'' as z' with no noise of looks

A latent dimension may say how light the hair is in both arms without its prior moving. What it says about the hair is
overwritten all the same, but it may also say what shade the wall has. Looks are therefore carried over where the
image stays the same. Where z' = z by definition, i.e. without a prior p(z|x,t), looks are not masked.

Where nothing changes, all masks are 1, so a null intervention still returns the photograph. `benchmarks/masks.py`
compares these masks, and others that did no better, by their error against the truth.
"""

import torch
from torch import Tensor

from civae_core.config.schema import NoiseMask
from civae_core.model.distributions import DiagonalNormal, LatentNormal


def noise_mask(effect_BCHW: Tensor, kind: NoiseMask, width: float) -> Tensor:
    """The mask m of the pixel noise, in [0,1]: [B,1,S,S].

    Args:
        effect_BCHW: f(z',t') − f(z,t) in units of [0,1] images.
        width: w, the change that removes 63 % of e, in the same units.
    """
    size_B1HW = effect_BCHW.abs().amax(dim=1, keepdim=True)
    if kind == "none":
        return torch.ones_like(size_B1HW)
    return torch.exp(-(size_B1HW / width).square())


def latent_mask(old: DiagonalNormal, new: DiagonalNormal, width: float | None) -> Tensor:
    """The mask ρ of the latent noise, in [0,1], from the priors under t and t': [B,Z].

    Args:
        width: w, the shift in standard deviations that removes 63 % of η; None for no mask.
    """
    if width is None:
        return torch.ones_like(old.mean_BZ)
    shift_BZ = (new.mean_BZ - old.mean_BZ) / torch.maximum(old.std_BZ, new.std_BZ)
    return torch.exp(-(shift_BZ / width).square())


def without(eta_BZ: Tensor, dimensions: slice) -> Tensor:
    """η [B,Z] with some dimensions set to 0, the mean of the noise."""
    others_Z = torch.ones(eta_BZ.shape[1], dtype=eta_BZ.dtype, device=eta_BZ.device)
    others_Z[dimensions] = 0
    return eta_BZ * others_Z


def carry(
    eta_BZ: Tensor, old: DiagonalNormal, new: LatentNormal, width: float | None
) -> tuple[DiagonalNormal, Tensor]:
    """The prior under t' along z' = h(x,t') + k(x,t')·ρ·η (M6), and z' [B,Z]; ρ receives no gradient.

    Args:
        eta_BZ: latent noise, abducted under `old`.
        old: the prior under t, along z.
        new: the prior under t'. Each of its scales is given the coarser scales of z'.
        width: width of ρ, as in `latent_mask`.
    """

    def masked(part: DiagonalNormal, dimensions: slice) -> Tensor:
        kept_BZ = latent_mask(old.part(dimensions), part, width).detach()
        return part.sample(kept_BZ * eta_BZ[:, dimensions])

    return new.along(masked)
