"""MS-SSIM against a slow reference, and LPIPS: absent with a word of why, or read from weights on the disk."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

from civae_core.evaluation import perceptual
from civae_core.evaluation.perceptual import ALEXNET_FILE, load_lpips, ms_ssim, ms_ssim_scales

CPU = torch.device("cpu")


def pair(size: int, channels: int = 3, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images and noisy copies of them."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(4, channels, size // 8, size // 8, generator=generator)
    a_NCHW = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear")
    return a_NCHW, (a_NCHW + noise * torch.randn(a_NCHW.shape, generator=generator)).clamp(0, 1)


def by_hand(a_CHW: Tensor, b_CHW: Tensor, scales: int) -> float:
    """Contrast × structure of each scale, luminance at the coarsest one too (Wang et al. 2003), by scipy's filters.

    As the library does, contrast terms are averaged inside the border, the coarsest scale over its border too.
    """
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    weights = weights / weights.sum()
    a, b = (image.double().numpy() for image in (a_CHW, b_CHW))

    def smooth(image: np.ndarray) -> np.ndarray:
        return np.stack([gaussian_filter(channel, 1.5, mode="mirror", radius=5) for channel in image])

    product = 1.0
    for scale in range(scales):
        mean_a, mean_b = smooth(a), smooth(b)
        variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
        similarity = (2 * (smooth(a * b) - mean_a * mean_b) + 0.03**2) / (variances + 0.03**2)
        if scale == scales - 1:
            similarity = similarity * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        else:
            similarity = similarity[:, 5:-5, 5:-5]
        product *= max(similarity.mean(), 0.0) ** weights[scale]
        half = a.shape[1] // 2
        a, b = (image.reshape(len(image), half, 2, half, 2).mean((2, 4)) for image in (a, b))
    return product


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 3), (64, 1), (128, 3)])
def test_it_agrees_with_a_reference_built_on_scipy(size: int, channels: int) -> None:
    a_NCHW, b_NCHW = pair(size, channels)
    expected = [by_hand(a, b, ms_ssim_scales(size)) for a, b in zip(a_NCHW, b_NCHW, strict=True)]
    assert ms_ssim(a_NCHW, b_NCHW).tolist() == pytest.approx(expected, abs=1e-4)


def test_identical_images_score_1_noise_less_and_opposites_a_number() -> None:
    a_NCHW, b_NCHW = pair(64, noise=0.05)
    _, c_NCHW = pair(64, noise=0.2)
    torch.testing.assert_close(ms_ssim(a_NCHW, a_NCHW), torch.ones(4))
    assert (ms_ssim(a_NCHW, c_NCHW) < ms_ssim(a_NCHW, b_NCHW)).all()
    torch.testing.assert_close(ms_ssim(a_NCHW, b_NCHW), ms_ssim(b_NCHW, a_NCHW))
    assert ms_ssim(a_NCHW, 1 - a_NCHW).isfinite().all(), "a negative contrast term has no fractional power"


def test_scales_follow_the_size() -> None:
    expected = {
        10: 0,
        11: 1,
        21: 1,
        22: 2,
        32: 2,
        43: 2,
        44: 3,
        64: 3,
        98: 3,
        99: 4,
        128: 4,
        175: 4,
        176: 5,
        256: 5,
    }
    assert {size: ms_ssim_scales(size) for size in expected} == expected
    generator = torch.Generator().manual_seed(0)
    for size in expected.keys() - {10}:
        y_1CHW = torch.rand(1, 1, size, size, generator=generator)
        assert float(ms_ssim(y_1CHW, y_1CHW)) == pytest.approx(1.0, abs=1e-5), (
            f"the library takes {size} pixels"
        )
    with pytest.raises(ValueError, match="at least 11"):
        ms_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the backbone's weights belong under an empty TORCH_HOME."""
    pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    file = tmp_path / "hub" / "checkpoints" / ALEXNET_FILE
    file.parent.mkdir(parents=True)
    return file


def save_made_weights(file: Path) -> None:
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(alexnet(weights=None).state_dict(), file)


def test_lpips_is_left_out_with_a_line_of_what_is_missing_and_where(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    with caplog.at_level(logging.DEBUG, "civae_core"):
        assert load_lpips(CPU) is None
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert line == f"LPIPS is left out: no $TORCH_HOME/hub/checkpoints/{ALEXNET_FILE}" and len(line) <= 80
    assert str(checkpoint) in caplog.text, "to the letter in the log of details"
    caplog.clear()
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, "civae_core"):
        assert load_lpips(CPU) is None
    assert "needs torchvision" in caplog.text


def test_lpips_of_images_too_small_for_its_backbone_is_left_out(checkpoint: Path) -> None:
    save_made_weights(checkpoint)
    assert load_lpips(CPU, size=30) is None
    lpips = load_lpips(CPU, size=31)
    assert lpips is not None
    assert lpips(torch.zeros(2, 3, 31, 31), torch.ones(2, 3, 31, 31)).isfinite().all()
    with pytest.raises(ValueError, match=r"31×31 pixels, not \(30, 30\)"):
        lpips(torch.zeros(2, 3, 30, 30), torch.ones(2, 3, 30, 30))


def test_lpips_reads_its_backbone_from_the_disk(checkpoint: Path) -> None:
    save_made_weights(checkpoint)
    lpips = load_lpips(CPU)
    assert lpips is not None
    for channels in (1, 3):
        a_NCHW, near_NCHW = pair(64, channels, noise=0.05)
        _, far_NCHW = pair(64, channels, noise=0.4)
        assert lpips(a_NCHW, a_NCHW).tolist() == [0.0] * 4
        assert (lpips(a_NCHW, near_NCHW) < lpips(a_NCHW, far_NCHW)).all()
    expected_N = learned_perceptual_image_patch_similarity(a_NCHW, far_NCHW, reduction="none", normalize=True)
    torch.testing.assert_close(lpips(a_NCHW, far_NCHW), expected_N)
    torch.testing.assert_close(
        lpips(a_NCHW[:1], 2 * far_NCHW[:1]), lpips(a_NCHW[:1], (2 * far_NCHW[:1]).clamp(0, 1))
    )


def test_weights_of_lpips_cannot_run_code(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touched = tmp_path / "touched"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (touched,))

    torch.save({"features.0.bias": Hostile()}, checkpoint)
    assert load_lpips(CPU) is None and "cannot be read" in caplog.text

    save_made_weights(checkpoint)
    load = torch.load

    def loaded_and_exchanged(file: Any, *args: Any, **options: Any) -> Any:
        found = load(file, *args, **options)
        torch.save({"features.0.bias": Hostile()}, checkpoint)
        return found

    monkeypatch.setattr(torch, "load", loaded_and_exchanged)
    assert load_lpips(CPU) is not None
    assert not touched.exists()
