"""Fixtures that several tests of `civae counterfactual` share."""

from pathlib import Path

import pytest
from PIL import Image

from civae_core.data import PreparedData
from civae_core.inference import plausible


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trained model count as sure; after 512 images it is unsure of everything (see tests/inference)."""
    monkeypatch.setattr(plausible, "SURE", 0.5)


@pytest.fixture
def photo_files(faces: PreparedData, tmp_path: Path) -> Path:
    """Three held-out faces as PNG files of the model's own size, so that loading changes no pixel."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image_CHW in enumerate(faces.images(faces.rows("test")[:3])):
        Image.fromarray(image_CHW.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{number}.png")
    return folder
