"""Folders that are whole or absent: an earlier one stays until another has taken its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from civae_core.errors import CivaeError, UsageError
from civae_core.export.folders import replaced


def files_of(folder: Path) -> tuple[str, ...]:
    return ("mark", "more") if (folder / "mark").is_file() else ()


def write(folder: Path, text: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    with replaced(folder, files_of, "an export") as temporary:
        (temporary / "mark").write_text(text)
        meanwhile()


def refused(folder: Path) -> str:
    """Why a folder is not replaced, which must be said before any work."""

    def work() -> None:
        raise AssertionError("the work was begun")

    with pytest.raises(UsageError) as error:
        write(folder, "new", work)
    assert error.value.hint is not None
    return f"{error.value.message}; {error.value.hint}"


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


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write(tmp_path, "first")
    assert (tmp_path / "mark").read_text() == "first"


def test_a_folder_that_holds_anything_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write(folder, "first")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / "notes.txt").write_text("mine")
    said = refused(folder)
    assert "exporting anew would delete what was changed or put there since: .git, notes.txt; " in said
    assert "export to another folder with --out, and copy the new files" in said
    assert (folder / ".git" / "HEAD").read_text() == "ref" and (folder / "mark").read_text() == "first"
    (tmp_path / "file").write_text("a file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "more").mkdir()
    for name in ("file", "other"):
        assert "exists and is not an export" in refused(tmp_path / name)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_folder_in_the_place_of_a_file_is_not_ours(tmp_path: Path) -> None:
    write(tmp_path / "m", "first")
    (tmp_path / "m" / "more").mkdir()
    assert "there since: more" in refused(tmp_path / "m")


def test_what_is_put_there_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write(folder, "first")
    with pytest.raises(UsageError, match="there since: notes"):
        write(folder, "second", lambda: (folder / "notes.txt").write_text("mine"))
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "mark").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_leftovers_of_file_managers_are_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path / "m", "first")
    for name in (".DS_Store", "._mark", "Thumbs.db"):
        (tmp_path / "m" / name).write_bytes(b"")
    write(tmp_path / "m", "second")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["mark"]


def test_behind_a_link_the_folder_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "m")
    for text in ("first", "second"):
        write(link, text)
        assert (tmp_path / "disk" / "m" / "mark").read_text() == text
    assert link.is_symlink() and [path.name for path in (tmp_path / "disk").iterdir()] == ["m"]


def test_a_folder_that_cannot_be_exchanged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell would be left in a folder that is gone; a disk's folder cannot be renamed."""
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path):
        said = refused(folder)
        assert (
            "is the current folder, which cannot be exchanged" in said and f"--out {folder / 'model'}" in said
        )
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    (tmp_path / "link").symlink_to("disk")
    for name in ("disk", "link"):
        assert f"{name}: is a disk of its own" in refused(Path(name))
