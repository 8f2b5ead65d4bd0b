"""Small image folders and sources that the tests of this folder share."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting_reader import CountingReader
from PIL import Image

from civae_core.data.images import Preprocessing
from civae_core.data.sources.base import Source, TruthSpec
from civae_core.data.tables import Table


def picture(number: int, width: int = 20, height: int = 24) -> Image.Image:
    """A picture that differs from that of any other number, smooth enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    red = (number * 37) % 256
    return Image.fromarray(np.stack([np.full_like(x, red), x * 9 % 256, y * 7 % 256], -1).astype(np.uint8))


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of JPEGs with metadata.csv: file_name, split (unless left out), Male, Age."""

    def make(count: int = 20, split: bool = True, name: str = "photos") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rows = []
        for number in range(count):
            file = f"{number:03d}.jpg"
            picture(number).save(folder / file, quality=95)
            row = {"file_name": file, "Male": number % 2, "Age": 20 + number}
            if split:
                row["split"] = ("train", "train", "train", "valid", "test")[number % 5]
            rows.append(row)
        with (folder / "metadata.csv").open("w", newline="") as file_:
            writer = csv.DictWriter(file_, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return make


@pytest.fixture
def counting_source(tmp_path: Path) -> Callable[..., Source]:
    """Makes a source of `count` tiny grey images whose reader counts; see `CountingReader`."""

    def make(count: int = 300, truths: int = 0, **reader: object) -> Source:
        rows = np.arange(count)
        return Source(
            name="counted",
            identity={"kind": "counted", "n": count},
            table=Table(
                file_names=[f"é-{row}" for row in rows],
                names=("Old",),
                kinds=("binary",),
                values_NA=(rows % 2).astype(np.float32)[:, None],
                splits_N=None,
                notes=[],
            ),
            splits_N=np.where(rows % 5 == 4, 2, np.where(rows % 5 == 3, 1, 0)).astype(np.uint8),
            preprocessing=Preprocessing(size=4, channels=1),
            reader=CountingReader(tmp_path / "reads.txt", truths=truths, **reader),  # type: ignore[arg-type]
            truths=tuple(TruthSpec(f"Old={k}", {"Old": float(k)}) for k in range(truths)),
        )

    return make
