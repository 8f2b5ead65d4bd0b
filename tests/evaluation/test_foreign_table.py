"""What the table of another program's pictures may call an image."""

import csv
from pathlib import Path

import pytest

from civae_core.data import PreparedData
from civae_core.errors import DataError
from civae_core.evaluation.foreign_table import TABLE, read_answers


def row_of(source: str, data: PreparedData, folder: Path) -> int:
    """The row of the data that a table's only line is about."""
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file_name", "source", "Young"], ["0.png", source, "1"]])
    _, (listed,) = read_answers(folder / TABLE, folder, data, ["Young"], "theirs")
    return listed.row


def test_a_source_may_be_named_with_the_data_s_own_folder(faces: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(faces.path)
    row = int(faces.rows("test")[3])
    for here in (faces.path, tmp_path / "link", faces.path / "x" / ".."):
        assert row_of(f"{here}#test[3]", faces, tmp_path) == row_of("test[3]", faces, tmp_path) == row


def test_a_source_of_other_data_is_refused(faces: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for other in ("data/other", str(tmp_path / "circle"), "data/other#test[3]", "nul\0"):
        with pytest.raises(DataError) as refused:
            row_of(f"{other}#test[3]", faces, tmp_path)
        assert f"{TABLE}:2: source {other + '#test[3]'!r} is an image of " in refused.value.message
        assert f", not of {faces.path}" in refused.value.message and "--data" in str(refused.value.hint)
