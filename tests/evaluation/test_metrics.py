"""Image metrics against scikit-image and against the facts that define them."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from civae_core.evaluation.metrics import IDENTICAL_PSNR, bits_per_dim, effect_terms, mse, psnr, ssim


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


def test_equal_images_are_perfect_and_finite() -> None:
    y_NCHW = images(0)
    assert torch.allclose(psnr(y_NCHW, y_NCHW), torch.tensor(IDENTICAL_PSNR))
    assert torch.allclose(ssim(y_NCHW, y_NCHW), torch.ones(4), atol=1e-6)
    assert float(mse(y_NCHW, y_NCHW).max()) == 0.0


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="11×11"):
        ssim(images(0, size=10), images(1, size=10))


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
