"""Read the table in which another program states what its pictures answer, without trusting it.

`counterfactuals.csv` (comma-, semicolon- or tab-separated; or .tsv, .jsonl) has a row for each picture:

    file_name       the counterfactual's file, within the folder
    source          the prepared image that it is a counterfactual of: `test[17]`, also with the data's folder before
                    it, as in `data/faces#test[17]`, or that image's own file name
    <treatment>     the intended value, one column for each treatment
    reconstruction  (optional) the program's picture of the source without intervention
    method          (optional) which of several programs made it; without it, all rows belong to one method

Errors name the row's line. docs/yardstick.md explains the same table to the other program's author.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from civae_core.data import PreparedData
from civae_core.data.images import load_photo
from civae_core.data.selection import parse_selection
from civae_core.data.splits import SPLITS
from civae_core.data.tables import FILE_COLUMN, Cell, delimited_rows, jsonl_rows, open_text, safe_name
from civae_core.errors import DataError, UsageError
from civae_core.os_errors import SPELLING
from civae_core.progress import progress

log = logging.getLogger(__name__)

STEM = "counterfactuals"
TABLE = f"{STEM}.csv"
SOURCE, RECONSTRUCTION, METHOD = "source", "reconstruction", "method"
SOURCE_IMAGE, FACTUAL = "source_image", "factual_"
"""In the tables that we write: the column of the picture to change, and the prefix of columns with what is known
about its subject. Neither is read back."""

SOURCE_HINT = "write the prepared image's file name, or its place in a split, such as test[17]"


@dataclass(frozen=True)
class Listed:
    """One row of the table: a picture, and what it answers."""

    line: int
    method: str
    row: int
    """Row of the prepared data."""
    values: tuple[float, ...]
    """Intended treatments, rounded to float32."""
    picture: Path
    reconstruction: Path | None


def find_answers(folder: Path) -> Path:
    """The folder's table: `counterfactuals.csv`, .tsv or .jsonl.

    Raises:
        UsageError: there is no such folder or table, or there are several.
    """
    where = f"--images {folder}"
    if not folder.is_dir():
        raise UsageError(
            f"{where}: no such folder", hint=f"{SPELLING}; `civae evaluate --questions DIR` makes one"
        )
    tables = [folder / f"{STEM}{suffix}" for suffix in (".csv", ".tsv", ".jsonl")]
    found = [table for table in tables if table.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{where}: holds both {found[0].name} and {found[1].name}", hint="keep one of them")
    raise UsageError(
        f"{where}: has no table {TABLE}", hint="`civae evaluate --questions DIR` writes one to fill in"
    )


def read_answers(
    path: Path, folder: Path, data: PreparedData, treatments: Sequence[str], name: str
) -> tuple[tuple[str, ...], list[Listed]]:
    """Read the table: the treatments that it has columns for, and its rows.

    Args:
        treatments: attributes whose columns hold the intended values; if empty, all columns that are attributes.
        name: the method of rows that name none.

    Raises:
        DataError: a column is missing, a row cannot be understood or names a file outside the folder, or there are
            no rows.
    """
    rows = jsonl_rows(path) if path.suffix.lower() == ".jsonl" else delimited_rows(open_text(path), path)
    sources = _Sources(data)
    chosen: tuple[str, ...] = ()
    listed = []
    for line, cells in rows:
        where = f"{path}:{line}"
        chosen = chosen or _treatment_columns(cells, data, treatments, path)
        row = sources.row(_text(cells, SOURCE, where), where)
        values = torch.tensor([_number(cells, column, where) for column in chosen]).tolist()
        picture = folder / safe_name(cells[FILE_COLUMN], path, line)
        reconstruction = _other_file(folder, cells.get(RECONSTRUCTION), path, line)
        method = str(cells.get(METHOD) or "").strip() or name
        listed.append(Listed(line, method, row, tuple(values), picture, reconstruction))
    if not listed:
        raise DataError(
            f"{path}: has no rows",
            hint="add a line for each picture, as `civae evaluate --questions` writes them",
        )
    return chosen, listed


def require_pictures(path: Path, folder: Path, listed: Iterable[Listed], data: PreparedData) -> None:
    """Open every picture once: a bad one must stop an evaluation before the work, and none may be left out.

    Raises:
        DataError: pictures are missing, damaged, of another size than the prepared images, or links that lead out of
            the folder; the message names the first and counts them all.
    """
    lines: dict[Path, int] = {}
    for row in listed:
        for file in (row.picture, row.reconstruction):
            if file is not None:
                lines.setdefault(file, row.line)
    errors = []
    inside = folder.resolve()
    with progress(f"checking {folder}", len(lines)) as bar:
        for file, line in lines.items():
            try:
                if not file.is_file():
                    raise DataError(f"there is no file {file}", hint="add the picture, or delete its line")
                if not file.resolve().is_relative_to(inside):
                    raise DataError(
                        f"{file} is a link that points outside the folder",
                        hint="put the picture itself into the folder",
                    )
                read_picture(file, data)
            except DataError as error:
                errors.append(DataError(f"{path}:{line}: {error.message}", hint=error.hint))
            bar.advance()
    if errors:
        count = f"; {len(errors):,} of {len(lines):,} pictures are unusable" if len(errors) > 1 else ""
        raise DataError(errors[0].message + count, hint=errors[0].hint)


def read_picture(file: Path, data: PreparedData) -> torch.Tensor:
    """Read a picture of another program as uint8 [C,S,S], without cropping or resizing.

    Raises:
        DataError: the picture is missing, damaged, or not of the prepared images' size.
    """
    # Only `load_photo` rejects hostile files; at the right size it changes no pixel.
    pixels_CHW = load_photo(file, {"size": data.size, "channels": data.channels})
    with Image.open(file) as picture:
        width, height = picture.size
    if (width, height) != (data.size, data.size):
        raise DataError(
            f"{file}: {width}×{height} pixels, but the prepared images have {data.size}×{data.size}",
            hint="save the counterfactuals at the size of their sources, as `civae evaluate --questions` writes them",
        )
    return pixels_CHW


class _Sources:
    """Finds an image's row by what a table calls the image."""

    def __init__(self, data: PreparedData) -> None:
        self._data = data
        self._splits = {split: data.rows(split).tolist() for split in SPLITS}
        self._rows: dict[str, int] = {}
        self._repeated: set[str] = set()
        for row, name in enumerate(data.file_names):
            if name in self._rows:
                self._repeated.add(name)
            self._rows[name] = row

    def row(self, source: str, where: str) -> int:
        if source in self._repeated:
            raise DataError(
                f"{where}: {self._data.path} has several images called {source}", hint=SOURCE_HINT
            )
        if source in self._rows:
            return self._rows[source]
        try:
            selection = parse_selection(source if "#" in source else f"{self._data.path}#{source}")
        except UsageError:
            selection = None
        if selection is not None and not self._is_here(selection.path):
            raise DataError(
                f"{where}: source {source!r} is an image of {selection.path}, not of {self._data.path}",
                hint="name the data of the sources with --data; if this is the same data, write only test[17]",
            )
        if selection is None or selection.stop != selection.start + 1:
            raise DataError(
                f"{where}: source {source!r} is not an image of {self._data.path}", hint=SOURCE_HINT
            )
        rows = self._splits[selection.split]
        if selection.start >= len(rows):
            count = f"{selection.split} has {len(rows):,} images, numbered from 0"
            raise DataError(f"{where}: source {source} is outside the split", hint=count)
        row: int = rows[selection.start]
        return row

    def _is_here(self, folder: Path) -> bool:
        try:
            return folder == self._data.path or folder.resolve() == self._data.path.resolve()
        except (RuntimeError, ValueError):  # links in a circle, or a null character
            return False


def _treatment_columns(
    cells: Mapping[str, Cell], data: PreparedData, treatments: Sequence[str], path: Path
) -> tuple[str, ...]:
    columns = ", ".join(cells)
    for column in (FILE_COLUMN, SOURCE):
        if column not in cells:
            raise DataError(f"{path}:1: no column {column}", hint=f"the columns are {columns}")
    attributes = [a.name for a in data.attributes]
    wanted = list(treatments) or [name for name in cells if name in attributes]
    found = tuple(name for name in wanted if name in cells)
    if not found:
        one_of = ", ".join((wanted or attributes)[:6])
        raise DataError(
            f"{path}:1: no column says which treatment was intended ({one_of})",
            hint=f"the columns are {columns}",
        )
    known = {FILE_COLUMN, SOURCE, RECONSTRUCTION, METHOD, SOURCE_IMAGE, *found}
    ignored = [name for name in cells if name and name not in known and not name.startswith(FACTUAL)]
    if ignored:
        log.warning("%s: ignored columns: %s; treatments: %s", path, ", ".join(ignored), ", ".join(found))
    return found


def _text(cells: Mapping[str, Cell], column: str, where: str) -> str:
    cell = cells.get(column)
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise DataError(f"{where}: {column} is empty", hint="fill it in, or delete the line")
    return text


def _number(cells: Mapping[str, Cell], column: str, where: str) -> float:
    text = _text(cells, column, where)
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(
            f"{where}: {column} is {text!r}, not a number",
            hint="write the value that was set, in the prepared data's units; 0 or 1 for a binary attribute",
        ) from error
    if not math.isfinite(value) or abs(value) > torch.finfo(torch.float32).max:
        raise DataError(
            f"{where}: {column} is {text}, which is not a value that can be intended",
            hint="write the value that was set, in the prepared data's units",
        )
    return value


def _other_file(folder: Path, cell: Cell, path: Path, line: int) -> Path | None:
    if cell is None or not str(cell).strip():
        return None
    try:
        return folder / safe_name(cell, path, line)
    except DataError as error:
        raise DataError(
            f"{path}:{line}: {RECONSTRUCTION} {cell!r} does not name a file in the folder", hint=error.hint
        ) from error


def described_rows(rows: Iterable[int], data: PreparedData) -> Iterator[str]:
    """Names of rows of the prepared data as tables have them, such as `test[17]`."""
    places = {row: f"{split}[{i}]" for split in SPLITS for i, row in enumerate(data.rows(split).tolist())}
    return (places[row] for row in rows)
