"""Blur, noise and mirroring of training images."""

import pytest
import torch
from skimage.filters import gaussian

from civae_core.yardstick.degrade import blurred, degraded, mirrored


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.9])
def test_blur_is_the_gaussian_filter(sigma: float) -> None:
    y_BCHW = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = blurred(y_BCHW, sigma)
    for image_CHW, blurred_CHW in zip(y_BCHW, found, strict=True):
        expected = gaussian(
            image_CHW.numpy(), sigma, mode="mirror", channel_axis=0, truncate=round(3 * sigma) / sigma
        )
        torch.testing.assert_close(blurred_CHW, torch.from_numpy(expected))


def test_blur_wider_than_the_image_is_still_an_average() -> None:
    y_BCHW = torch.full((1, 1, 4, 4), 0.3)
    torch.testing.assert_close(blurred(y_BCHW, 9.0), y_BCHW)


def test_half_of_a_batch_is_degraded_and_the_rest_untouched() -> None:
    y_BCHW = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = degraded(y_BCHW, seed=0, step=64, strongest_blur=0.03, noise=0.03)
    torch.testing.assert_close(found[4:], y_BCHW[4:], rtol=0, atol=0)
    assert (found[:4] - y_BCHW[:4]).abs().mean() > 0.01
    torch.testing.assert_close(
        found, degraded(y_BCHW, seed=0, step=64, strongest_blur=0.03, noise=0.03), rtol=0, atol=0
    )
    assert not torch.equal(found, degraded(y_BCHW, seed=1, step=64, strongest_blur=0.03, noise=0.03))


def test_noise_does_not_leave_the_range_of_an_image() -> None:
    found = degraded(torch.ones(4, 1, 16, 16), seed=0, step=0, strongest_blur=0.03, noise=0.1)
    assert found.max() == 1.0 and found[:2].min() < 1.0


def test_images_are_mirrored_at_random_and_whole() -> None:
    y_BCHW = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = mirrored(y_BCHW, seed=0, step=0)
    kept_B = (found == y_BCHW).flatten(1).all(1)
    assert ((found == y_BCHW.flip(3)).flatten(1).all(1) == ~kept_B).all()
    assert 16 < int(kept_B.sum()) < 48
