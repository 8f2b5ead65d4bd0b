"""Distances between images and the errors of counterfactuals (METHOD 6), as pure functions.

Images are floats in [0, 1], [N, C, H, W]; every function returns one value per image, in the images' dtype and
on their device. y is the input, y' the estimated and y* the true counterfactual. `bootstrap.py` turns the values
of many images into one number with an interval.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IDENTICAL_PSNR = 100.0
"""PSNR of equal images in dB, for which the formula gives infinity: an error of 1e-10, far below one grey level."""

CHANGE_THRESHOLD = 0.5
"""Grey levels (of 255) by which the truth must move a pixel for it to count as changed: less cannot be stored."""

SSIM_WINDOW = 11
"""Side of SSIM's window in pixels; smaller images have no SSIM."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales of Wang et al. 2003, the finest first."""


def mse(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Mean squared error [N] over channels and pixels."""
    return (a_NCHW - b_NCHW).square().flatten(1).mean(1)


def psnr(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB for a peak of 1; at most `IDENTICAL_PSNR`."""
    return -10.0 * mse(a_NCHW, b_NCHW).clamp(min=10.0 ** (-IDENTICAL_PSNR / 10.0)).log10()


def ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Structural similarity [N] in [-1, 1] (Wang et al. 2004): Gaussian 11×11 window of σ 1.5, range 1.

    The mean over windows that lie wholly inside the image, per channel, then over channels, as in scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=1)`.

    Raises:
        ValueError: an image is smaller than the window.
    """
    luminance_NCHW, contrast_NCHW = _similarities(a_NCHW, b_NCHW)
    return (luminance_NCHW * contrast_NCHW).flatten(1).mean(1).to(a_NCHW.dtype)


def ms_ssim_scales(size: int) -> int:
    """Number of MS-SSIM scales for images of this size: each halves the previous one and must hold a whole window.

    5 from 176 pixels on, 4 from 88, 3 from 44, 2 from 22, 1 (which is SSIM) from 11, none below.
    """
    return sum(size >> scale >= SSIM_WINDOW for scale in range(len(MS_SSIM_WEIGHTS)))


def ms_ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Multi-scale structural similarity [N] in [0, 1] (Wang et al. 2003), over `ms_ssim_scales` scales.

    The product of contrast and structure at each scale but the coarsest, and of SSIM at the coarsest, each to the
    power of its weight. The standard weights are for five scales; with fewer they are rescaled to sum to 1, so that
    values for different image sizes are not comparable. A scale at which the images are anti-correlated counts as 0,
    because a negative number has no real fractional power.

    Raises:
        ValueError: an image is smaller than SSIM's window.
    """
    _require_window(a_NCHW)
    scales = ms_ssim_scales(min(a_NCHW.shape[2:]))
    weights = MS_SSIM_WEIGHTS[:scales]
    product_N = torch.ones(len(a_NCHW), dtype=a_NCHW.dtype, device=a_NCHW.device)
    for scale, weight in enumerate(weights):
        if scale < scales - 1:
            similarity_N = _similarities(a_NCHW, b_NCHW)[1].flatten(1).mean(1).to(a_NCHW.dtype)
            a_NCHW, b_NCHW = F.avg_pool2d(a_NCHW, 2), F.avg_pool2d(b_NCHW, 2)
        else:
            similarity_N = ssim(a_NCHW, b_NCHW)
        product_N = product_N * similarity_N.clamp(min=0.0) ** (weight / sum(weights))
    return product_N


def _similarities(a_NCHW: Tensor, b_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's luminance, and its contrast and structure, for each window inside the images: [N,C,H−10,W−10] each.

    Computed in float64 where the device has it: variances are small differences of large numbers, and a GPU may round
    products of float32 to 10 bits.

    Raises:
        ValueError: an image is smaller than the window.
    """
    _require_window(a_NCHW)
    exact = torch.float32 if a_NCHW.device.type == "mps" else torch.float64
    down_VH, across_VW = (_windows(side).to(a_NCHW.device, exact) for side in a_NCHW.shape[2:])

    def local(values_NCHW: Tensor) -> Tensor:
        return down_VH @ values_NCHW @ across_VW.T

    a_NCHW, b_NCHW = a_NCHW.to(exact), b_NCHW.to(exact)
    mean_a, mean_b = local(a_NCHW), local(b_NCHW)
    variances = local(a_NCHW * a_NCHW + b_NCHW * b_NCHW) - mean_a * mean_a - mean_b * mean_b
    covariance = local(a_NCHW * b_NCHW) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a * mean_a + mean_b * mean_b + 0.01**2)
    return luminance, (2 * covariance + 0.03**2) / (variances + 0.03**2)


def _windows(side: int) -> Tensor:
    """Weights [V, side] of SSIM's window at each of its V positions along a side.

    A Gaussian window is the product of one over rows and one over columns. Applied as matrices, these take a small
    part of the time that the same filter takes as a convolution on a CPU.
    """
    place_V1 = torch.arange(side - SSIM_WINDOW + 1, dtype=torch.float64)[:, None]
    offset_VH = torch.arange(side) - place_V1 - SSIM_WINDOW // 2
    weight_VH = torch.exp(-offset_VH.square() / (2 * 1.5**2)) * (offset_VH.abs() <= SSIM_WINDOW // 2)
    return weight_VH / weight_VH.sum(dim=1, keepdim=True)


def _require_window(a_NCHW: Tensor) -> None:
    height, width = a_NCHW.shape[2:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least 11×11 pixels, not {height}×{width}")


@dataclass(frozen=True)
class EffectTerms:
    """Per-image terms [N] from which the errors of a set of counterfactuals are computed.

    The relative effect error is a ratio of sums over the set, not a mean of per-image ratios, so that an image
    which the treatment hardly changes does not dominate.
    """

    error_N: Tensor
    """Σ(y'−y*)² over the pixels that the truth changes, all channels."""
    size_N: Tensor
    """Σ(y−y*)² over the same pixels: the size of the true effect, and the error of copying the input."""
    off_error_N: Tensor
    """Σ(y'−y*)² over all other pixels."""
    off_count_N: Tensor
    """Number of values (pixels × channels) among those other pixels."""


def effect_terms(
    y_NCHW: Tensor, estimate_NCHW: Tensor, truth_NCHW: Tensor, threshold: float = CHANGE_THRESHOLD
) -> EffectTerms:
    """Split the squared error of y' by whether the truth changes the pixel.

    Args:
        y_NCHW: the inputs y.
        estimate_NCHW: y'.
        truth_NCHW: y*.
        threshold: a pixel counts as changed if |y − y*| exceeds this many 255ths in any channel.
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

    The probability of a grey level is taken as density × width, so the result is meaningless for a σ far below
    1/255.
    """
    return nats_N / (dimensions * math.log(2.0)) + math.log2(255.0)
