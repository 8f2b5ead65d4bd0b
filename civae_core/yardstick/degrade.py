"""Image augmentations for yardsticks: blur and slight noise, as in a model's images, and mirroring."""

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.randomness import generator_for


def blurred(y_BCHW: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` > 0 pixels, with mirrored edges."""
    # Reflect padding must be smaller than the image; no sensible σ comes near this limit.
    radius = min(max(round(3 * sigma), 1), y_BCHW.shape[-1] - 1)
    offset_K = torch.arange(-radius, radius + 1, device=y_BCHW.device, dtype=y_BCHW.dtype)
    window_K = (-0.5 * (offset_K / sigma).square()).exp()
    window_K = window_K / window_K.sum()
    channels = y_BCHW.shape[1]
    padded_BCHW = F.pad(y_BCHW, (radius, radius, radius, radius), mode="reflect")
    rows_BCHW = F.conv2d(padded_BCHW, window_K.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows_BCHW, window_K.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def mirrored(y_BCHW: Tensor, seed: int, step: int) -> Tensor:
    """The images, each flipped left to right with probability one half."""
    draws_B = torch.rand(len(y_BCHW), generator=generator_for(seed, "yardstick flip", step))
    flips_B = (draws_B < 0.5).to(y_BCHW.device)
    return torch.where(flips_B[:, None, None, None], y_BCHW.flip(3), y_BCHW)


def degraded(y_BCHW: Tensor, seed: int, step: int, *, strongest_blur: float, noise: float) -> Tensor:
    """The images, the first half of the batch blurred, with noise added, and clamped to [0,1].

    Args:
        strongest_blur: largest σ of the blur as a share of the image's side; one σ per batch, drawn uniformly.
        noise: largest standard deviation of the noise; also drawn uniformly, once per batch.
    """
    generator = generator_for(seed, "yardstick noise", step)
    half = len(y_BCHW) // 2
    blur_share, noise_share = torch.rand(2, generator=generator).tolist()
    sigma = max(blur_share * strongest_blur * y_BCHW.shape[-1], 0.2)  # a smaller σ changes nothing
    noise_BCHW = torch.randn(y_BCHW[:half].shape, generator=generator).to(y_BCHW.device)
    worse_BCHW = blurred(y_BCHW[:half], sigma) + noise_share * noise * noise_BCHW
    return torch.cat([worse_BCHW.clamp(0, 1), y_BCHW[half:]])
