"""LPIPS: absent with a word of why, or read from weights on the disk that cannot run code."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

from civae_core import extras
from civae_core.evaluation.perceptual import ALEXNET_FILE, load_lpips

CPU = torch.device("cpu")


def pair(size: int, channels: int = 3, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images and noisy copies of them."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(4, channels, size // 8, size // 8, generator=generator)
    a_NCHW = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear")
    return a_NCHW, (a_NCHW + noise * torch.randn(a_NCHW.shape, generator=generator)).clamp(0, 1)


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
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
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
