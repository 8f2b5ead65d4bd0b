"""Kernel dependence of the latent noise on the treatment given x (HSIC, Gretton et al. 2005, made conditional).

    r = t − E[t|x]
    R = ‖ E[ r · φ(η) ⊗ ψ(x) ] ‖²  =  E[ r·r' k(η,η') l(x,x') ]     over pairs of different images

R is zero if E[t|η,x] = E[t|x]; for a binary t this means η ⟂ t | x. Residuals given x would not suffice: without the
kernel l beside k, dependences of opposite sign at two values of x would cancel. Both kernels are Gaussian. In k, 2σ²
is the median squared distance in the batch, treated as a constant in the gradient; in l, σ is √X for X standardised
covariates. The estimate is the unbiased one (pairs of an image with itself are left out), so it scatters about zero
and may be negative. It has no unit and lies between −1 and 1 for one binary treatment.
"""

import torch
from torch import Tensor


def conditional_hsic(eta_BZ: Tensor, x_BX: Tensor, residual_BT: Tensor, weights_B: Tensor) -> Tensor:
    """Each image's share of R [B]; the mean of the shares, weighted by `weights_B`, is R under those weights.

    Args:
        eta_BZ: latent noise.
        x_BX: standardised covariates; X may be 0.
        residual_BT: t − E[t|x]; receives no gradient.
        weights_B: weights of the images, with mean 1 over the data.
    """
    residual_BT = residual_BT.detach()
    l_BB = torch.exp(-0.5 * _squared_distances(x_BX) / max(x_BX.shape[1], 1))
    # Not a matrix product, which autocast would round to half precision.
    products_BB = (residual_BT[:, None] * residual_BT[None]).sum(dim=2)
    pairs_BB = products_BB * gaussian_kernel(eta_BZ) * l_BB
    pairs_BB = pairs_BB - torch.diag_embed(pairs_BB.diagonal())
    return (pairs_BB * weights_B).sum(dim=1) / max(len(eta_BZ) - 1, 1)


def gaussian_kernel(eta_BZ: Tensor) -> Tensor:
    """exp(−d²/m) for all pairs of rows [B, B], where m is the median of d² over pairs of different rows."""
    squares_BB = _squared_distances(eta_BZ)
    batch = len(eta_BZ)
    others = ~torch.eye(batch, dtype=torch.bool, device=eta_BZ.device)
    ranked = squares_BB.detach().masked_fill(~others, torch.inf).flatten().sort().values
    median = ranked[max(batch * (batch - 1) - 1, 0) // 2].clamp(min=1e-12)
    return torch.exp(-squares_BB / median)


def _squared_distances(a_BF: Tensor) -> Tensor:
    return (a_BF[:, None] - a_BF[None]).square().sum(dim=2)
