"""Image metrics against scikit-image and against the facts that define them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.measure import block_reduce
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from civae_core.evaluation.metrics import (
    IDENTICAL_PSNR,
    bits_per_dim,
    effect_terms,
    ms_ssim,
    ms_ssim_scales,
    mse,
    psnr,
    ssim,
)


def images(seed: int, channels: int = 3, count: int = 4, size: int = 24) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_skimage(channels: int) -> None:
    a_NCHW = images(0, channels)
    b_NCHW = (a_NCHW + 0.3 * (images(1, channels) - 0.5)).clamp(0, 1)
    for i in range(len(a_NCHW)):
        a, b = a_NCHW[i].double().numpy(), b_NCHW[i].double().numpy()
        similarity = structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, use_sample_covariance=False, data_range=1.0
        )
        assert float(ssim(a_NCHW, b_NCHW)[i]) == pytest.approx(similarity, abs=1e-5)
        assert float(psnr(a_NCHW, b_NCHW)[i]) == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-4
        )
        assert float(mse(a_NCHW, b_NCHW)[i]) == pytest.approx(np.square(a - b).mean(), rel=1e-5)


def test_ssim_of_pictures_that_are_not_square_and_hardly_vary() -> None:
    """Variances of 1e-4 beside means of 0.9 are lost where products are rounded to a few digits."""
    a_NCHW = 0.9 + 0.02 * images(0, size=40)[..., :23]
    b_NCHW = a_NCHW + 0.02 * (images(1, size=40)[..., :23] - 0.5)
    for dtype in (torch.float32, torch.float64):
        found_N = ssim(a_NCHW.to(dtype), b_NCHW.to(dtype))
        assert found_N.dtype == dtype
        for i, value in enumerate(found_N.tolist()):
            a, b = a_NCHW[i].double().numpy(), b_NCHW[i].double().numpy()
            similarity = structural_similarity(
                a, b, channel_axis=0, gaussian_weights=True, use_sample_covariance=False, data_range=1.0
            )
            assert value == pytest.approx(similarity, abs=1e-7 if dtype == torch.float64 else 1e-6)


def test_equal_images_are_perfect_and_finite() -> None:
    y_NCHW = images(0)
    assert torch.allclose(psnr(y_NCHW, y_NCHW), torch.tensor(IDENTICAL_PSNR))
    assert torch.allclose(ssim(y_NCHW, y_NCHW), torch.ones(4), atol=1e-6)
    assert torch.allclose(ms_ssim(y_NCHW, y_NCHW), torch.ones(4), atol=1e-6)
    assert float(mse(y_NCHW, y_NCHW).max()) == 0.0


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_ssim_refuses_images_smaller_than_its_window(measure: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="11×11"):
        measure(images(0, size=10), images(1, size=10))


def gaussian_windows(image: np.ndarray) -> np.ndarray:
    """Weighted means of all 11×11 windows that lie inside an image, one window at a time."""
    offset = np.arange(-5, 6)
    weight = np.exp(-np.square(offset) / (2 * 1.5**2))
    weight = np.outer(weight, weight) / np.outer(weight, weight).sum()
    rows, columns = (side - 10 for side in image.shape)
    return np.array(
        [[(weight * image[r : r + 11, c : c + 11]).sum() for c in range(columns)] for r in range(rows)]
    )


def ms_ssim_by_hand(a: np.ndarray, b: np.ndarray, scales: int) -> float:
    """MS-SSIM of two images [C,H,W] from its definition (Wang et al. 2003)."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    factors = []
    for scale in range(scales):
        maps = []
        for one, other in zip(a, b, strict=True):
            mean_1, mean_2 = gaussian_windows(one), gaussian_windows(other)
            variance = gaussian_windows(one * one) - mean_1**2 + gaussian_windows(other * other) - mean_2**2
            contrast = (2 * (gaussian_windows(one * other) - mean_1 * mean_2) + 0.03**2) / (
                variance + 0.03**2
            )
            luminance = (2 * mean_1 * mean_2 + 0.01**2) / (mean_1**2 + mean_2**2 + 0.01**2)
            maps.append(contrast * luminance if scale == scales - 1 else contrast)
        factors.append(np.mean(maps))
        a, b = (block_reduce(image, (1, 2, 2), np.mean) for image in (a, b))
    return float(np.prod(np.array(factors) ** (weights / weights.sum())))


@pytest.mark.parametrize(("channels", "size", "scales"), [(1, 32, 2), (3, 24, 2), (1, 64, 3)])
def test_ms_ssim_is_its_definition(channels: int, size: int, scales: int) -> None:
    a_NCHW = images(0, channels, count=2, size=size)
    b_NCHW = (a_NCHW + 0.6 * (images(1, channels, count=2, size=size) - 0.5)).clamp(0, 1)
    found_N = ms_ssim(a_NCHW, b_NCHW)
    assert ms_ssim_scales(size) == scales
    for i in range(2):
        expected = ms_ssim_by_hand(a_NCHW[i].double().numpy(), b_NCHW[i].double().numpy(), scales)
        assert float(found_N[i]) == pytest.approx(expected, abs=1e-5)
    assert float(found_N.max()) < 0.99, "different enough to tell definitions apart"


def test_ms_ssim_has_the_scales_that_the_size_supports() -> None:
    sizes = {10: 0, 11: 1, 21: 1, 22: 2, 43: 2, 44: 3, 64: 3, 87: 3, 88: 4, 128: 4, 175: 4, 176: 5, 1024: 5}
    assert {size: ms_ssim_scales(size) for size in sizes} == sizes
    a_NCHW, b_NCHW = images(0, size=16), images(1, size=16)
    assert torch.allclose(ms_ssim(a_NCHW, b_NCHW), ssim(a_NCHW, b_NCHW).clamp(min=0), atol=1e-6), (
        "at one scale it is SSIM"
    )


def test_ms_ssim_of_negatives_is_0_and_not_undefined() -> None:
    y_NCHW = images(0, size=32)
    found_N = ms_ssim(torch.cat([y_NCHW[:1], y_NCHW[1:2]]), torch.cat([1 - y_NCHW[:1], y_NCHW[1:2]]))
    assert found_N.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_effect_terms_split_the_error_by_where_the_truth_changes() -> None:
    y_NCHW = images(0)
    truth_NCHW = y_NCHW.clone()
    truth_NCHW[:, 1, :6, :6] = (
        1.0 - 0.5 * truth_NCHW[:, 1, :6, :6]
    )  # one channel moves: the whole pixel counts
    copying = effect_terms(y_NCHW, y_NCHW, truth_NCHW)
    assert torch.equal(copying.error_N, copying.size_N) and float(copying.size_N.min()) > 0
    assert float(copying.off_error_N.max()) == 0.0
    assert copying.off_count_N.tolist() == [3 * (24 * 24 - 36)] * 4
    perfect = effect_terms(y_NCHW, truth_NCHW, truth_NCHW)
    assert float(perfect.error_N.max()) == 0.0 and torch.equal(perfect.size_N, copying.size_N)

    blunder_NCHW = truth_NCHW.clone()
    blunder_NCHW[:, :, 20, 20] += 0.1
    off = effect_terms(y_NCHW, blunder_NCHW, truth_NCHW)
    assert float(off.error_N.max()) == 0.0
    assert torch.allclose(off.off_error_N, torch.full((4,), 0.03), atol=1e-6)


def test_changes_below_half_a_grey_level_do_not_count() -> None:
    y_NCHW = images(0).clamp(0, 0.9)
    terms = effect_terms(y_NCHW, y_NCHW, y_NCHW + 0.4 / 255)
    assert float(terms.size_N.max()) == 0.0
    assert float(effect_terms(y_NCHW, y_NCHW, y_NCHW + 0.6 / 255).off_count_N.max()) == 0.0


def test_bits_per_dim_of_a_uniform_density_is_that_of_255_levels() -> None:
    # A uniform density on [0, 1] has 0 nats; telling 255 equal steps apart takes log2(255) bits.
    assert float(bits_per_dim(torch.zeros(1), 12)) == pytest.approx(math.log2(255))
    assert float(bits_per_dim(torch.full((1,), 12 * math.log(2.0)), 12)) == pytest.approx(math.log2(255) + 1)
