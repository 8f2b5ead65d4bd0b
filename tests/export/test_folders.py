"""Folders that are whole or absent: an earlier one stays until another has taken its place."""

import os
from pathlib import Path

import pytest

from civae_core.errors import CivaeError
from civae_core.export.folders import replaced


def write(folder: Path, text: str) -> None:
    with replaced(folder, ("mark",), "export") as temporary:
        (temporary / "mark").write_text(text)


def test_a_folder_of_the_same_kind_is_replaced_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for text in ("first", "second"):
        write(tmp_path / "m", text)
    assert (tmp_path / "m" / "mark").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_earlier_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    write(folder, "first")
    rename = os.replace

    def fails_for_the_new_one(self: Path, target: Path) -> None:
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        rename(self, target)

    monkeypatch.setattr(Path, "replace", fails_for_the_new_one)
    with pytest.raises(CivaeError, match="Input/output error"):
        write(folder, "second")
    assert (folder / "mark").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
