"""Many files of images as one row: the same images, few files mapped, each checked at the start."""

from pathlib import Path

import numpy as np
import pytest

from civae_core.data import shards as module
from civae_core.data.shards import Shards
from civae_core.data.tensorfile import TensorFile, write_tensors
from civae_core.errors import DataError

COUNTS = [3, 1, 4, 1, 5, 9, 2]
SHAPE = (1, 2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ends = np.cumsum(COUNTS)
    for number, (end, count) in enumerate(zip(ends, COUNTS, strict=True)):
        values = np.arange(end - count, end, dtype=np.uint8)
        images = np.broadcast_to(values[:, None, None, None], (count, *SHAPE))
        write_tensors(tmp_path / f"{number}", {"images": images})
    return tmp_path


class Opener:
    """Opens files, and knows which ones are still mapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[str] = []

    def __call__(self, name: str) -> TensorFile:
        self.opened.append(name)
        return TensorFile(self.folder / name)

    def mapped(self) -> int:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return sum(f"{self.folder}/" in line for line in maps.splitlines())


def listed() -> list[tuple[str, int]]:
    return [(str(number), count) for number, count in enumerate(COUNTS)]


def test_rows_come_in_the_order_asked_for_from_any_file(folder: Path) -> None:
    opener = Opener(folder)
    shards = Shards(opener, listed(), SHAPE)
    assert len(shards) == sum(COUNTS)
    assert opener.opened == [str(number) for number in range(len(COUNTS))]
    rows = np.random.default_rng(0).integers(0, sum(COUNTS), 50)
    assert (shards.read(rows)[:, 0, 1, 1] == rows).all()
    assert shards.read(rows[:0]).shape == (0, *SHAPE)
    assert len(opener.opened) == len(COUNTS), "few files stay open"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts maps as Linux lists them")
def test_of_many_files_few_are_mapped_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAPPED_AT_ONCE", 2)
    opener = Opener(folder)
    shards = Shards(opener, listed(), SHAPE)
    assert opener.mapped() == 2
    for row in range(sum(COUNTS)):
        assert shards.read(np.array([row]))[0, 0, 0, 0] == row
        assert opener.mapped() <= 2
    assert len(opener.opened) == 2 * len(COUNTS)
    shards.read(np.arange(sum(COUNTS)))
    assert opener.mapped() == 2


def test_the_last_of_many_files_is_checked_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAPPED_AT_ONCE", 2)
    with pytest.raises(DataError, match=r"tensor 'images' is uint8 \[2, 1, 2, 2\], expected uint8 \[3, 1"):
        Shards(Opener(folder), [*listed()[:-1], ("6", 3)], SHAPE)
