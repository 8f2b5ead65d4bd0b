"""Fixtures that the tests of several commands share."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.folder import folder_source
from civae_core.figures.pictures import to_picture
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


@pytest.fixture
def own_data(faces: PreparedData, tmp_path: Path) -> Callable[[dict[str, Tensor]], Path]:
    """Prepares the held-out faces again, with a table that has only the columns given: for each face of `faces`."""

    def make(columns: dict[str, Tensor]) -> Path:
        folder = tmp_path / "own-photos"
        folder.mkdir()
        with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "split", *columns])
            for split in ("valid", "test"):
                rows_M = faces.rows(split)  # type: ignore[arg-type]
                for row, image_CHW in zip(rows_M.tolist(), faces.images(rows_M), strict=True):
                    to_picture(image_CHW).save(folder / f"{row}.png")
                    labels = [float(values_N[row]) for values_N in columns.values()]
                    writer.writerow([f"{row}.png", split, *labels])
        source = folder_source(folder, table=None, size=faces.size, channels=3, crop=None, seed=None)
        return prepare(source, tmp_path / "own", workers=1, max_bad=MaxBad.parse("0")).data.path

    return make
