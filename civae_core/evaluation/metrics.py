"""Distances between images and the errors of counterfactuals (METHOD 6), as pure functions.

Images are floats in [0, 1], [N, C, H, W]; every function returns one value per image, in the images' dtype,
on their device. y is the input, y' the estimated and y* the true counterfactual. How values of many images
become one number with an interval is the business of `bootstrap.py`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IDENTICAL_PSNR = 100.0
"""PSNR of equal images in dB, where the formula says infinity: an error of 1e-10, far below one grey level."""

CHANGE_THRESHOLD = 0.5
"""Grey levels (of 255) that the truth must move a pixel by to count as changed: less cannot be stored."""

_SSIM_RADIUS = 5
SSIM_WINDOW = 2 * _SSIM_RADIUS + 1
"""SSIM's window in pixels: smaller images have none."""
_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def mse(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Mean squared error [N] over channels and pixels."""
    return (a_NCHW - b_NCHW).square().flatten(1).mean(1)


def psnr(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB for a peak of 1; at most `IDENTICAL_PSNR`."""
    return -10.0 * mse(a_NCHW, b_NCHW).clamp(min=10.0 ** (-IDENTICAL_PSNR / 10.0)).log10()


def ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Structural similarity [N] in [-1, 1] (Wang et al. 2004): Gaussian 11×11 window of σ 1.5, range 1.

    The mean over windows that lie wholly inside the image, per channel, then over channels: scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=1)`. It is our own because
    torchmetrics averages over a mirrored border too, and differs from it by up to 0.0015 on noisy images.

    Raises:
        ValueError: an image is smaller than the window.
    """
    channels, height, width = a_NCHW.shape[1:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least 11×11 pixels, not {height}×{width}")
    offset_K = torch.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1, dtype=a_NCHW.dtype, device=a_NCHW.device)
    window_K = (-0.5 * (offset_K / _SSIM_SIGMA).square()).exp()
    window_K = window_K / window_K.sum()

    def smooth(x_NCHW: Tensor) -> Tensor:
        vertical = window_K[None, None, :, None].expand(channels, 1, -1, 1)
        horizontal = window_K[None, None, None, :].expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(x_NCHW, vertical, groups=channels), horizontal, groups=channels)

    mean_a, mean_b = smooth(a_NCHW), smooth(b_NCHW)
    variance_a = smooth(a_NCHW.square()) - mean_a.square()
    variance_b = smooth(b_NCHW.square()) - mean_b.square()
    covariance = smooth(a_NCHW * b_NCHW) - mean_a * mean_b
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).flatten(1).mean(1)


@dataclass(frozen=True)
class EffectTerms:
    """What the errors of a set of counterfactuals are made of, per image [N].

    Sums over the set, not means of per-image ratios, give the relative effect error, so that an image which
    the treatment hardly changes does not dominate.
    """

    error_N: Tensor
    """Σ(y'−y*)² over the pixels that the truth changes, all channels."""
    size_N: Tensor
    """Σ(y−y*)² over the same pixels: the size of the true effect; the error that copying the input makes."""
    off_error_N: Tensor
    """Σ(y'−y*)² over all other pixels."""
    off_count_N: Tensor
    """Values (pixels × channels) among those other pixels."""


def effect_terms(
    y_NCHW: Tensor, estimate_NCHW: Tensor, truth_NCHW: Tensor, threshold: float = CHANGE_THRESHOLD
) -> EffectTerms:
    """Splits the squared error of y' by whether the truth changes the pixel.

    Args:
        y_NCHW: the inputs y.
        estimate_NCHW: y'.
        truth_NCHW: y*.
        threshold: a pixel counts as changed if any channel of y − y* exceeds this many 255ths.
    """
    change_NCHW = (y_NCHW - truth_NCHW).abs()
    changed_N1HW = change_NCHW.amax(dim=1, keepdim=True) > threshold / 255.0
    error_NCHW = (estimate_NCHW - truth_NCHW).square()
    channels = y_NCHW.shape[1]
    return EffectTerms(
        error_N=(error_NCHW * changed_N1HW).flatten(1).sum(1),
        size_N=(change_NCHW.square() * changed_N1HW).flatten(1).sum(1),
        off_error_N=(error_NCHW * ~changed_N1HW).flatten(1).sum(1),
        off_count_N=(~changed_N1HW).flatten(1).sum(1) * channels,
    )


def bits_per_dim(nats_N: Tensor, dimensions: int) -> Tensor:
    """Bits per pixel and channel [N] of 8-bit images from −ELBO in nats per image.

    Args:
        nats_N: −ELBO under a density on [0, 1] (M4 with β = 1), where a grey level is 1/255 wide.
        dimensions: C·H·W.

    The probability of a grey level is taken as density × width, so the figure means nothing for a σ far below
    1/255.
    """
    return nats_N / (dimensions * math.log(2.0)) + math.log2(255.0)
