"""Attribute tables: CSV, TSV or JSON lines with a `file_name` column, read row by row.

Cells are converted to numbers as they are read, so that millions of cells are never held as text. A column is binary
if its values are 0/1, -1/1, true/false or yes/no, else continuous in its own units; an empty cell is a missing label.
In a table for a model, the model's continuous attributes are continuous whatever their values.
"""

import csv
import io
import math
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Literal

import numpy as np

from civae_core.attributes import LARGEST, LONGEST_NAME, is_attribute_name, nearest
from civae_core.data.splits import split_code
from civae_core.errors import DataError
from civae_core.files import is_macos_leftover
from civae_core.os_errors import hint_on_reading
from civae_core.reading import parse_json

FILE_COLUMN = "file_name"
SPLIT_COLUMN = "split"

LONGEST_LINE = 2**20
MOST_COLUMNS = 1_000
"""Every column costs each command that opens the data time and memory: a thousand of them about half a second."""
_LONGEST_SHOWN = 40
FEW_VALUES = 10
"""A column with at most this many whole numbers may hold categories, of which a note tells."""

_JSON_HINT = f'write each line like {{"{FILE_COLUMN}": "17.jpg", "Young": 1}}, without a comma at the end'

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MISSING = {"", "na", "n/a", "nan", "null", "none"}
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
Cell = str | float | bool | None
Kind = Literal["binary", "continuous"]


@dataclass(frozen=True)
class Table:
    """File names with their attributes.

    `values_NA` is float32 [N,A], NaN where a label is missing; `splits_N` is uint8 [N] (0 train, 1 valid,
    2 test), or None if the table has no splits; `notes` are sentences for the report; `left_out` tells of each column
    that cannot be used, why.
    """

    file_names: list[str]
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    values_NA: np.ndarray
    splits_N: np.ndarray | None
    notes: list[str]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Column:
    """Numbers of one column while it is read, with what is needed to classify it afterwards."""

    name: str
    numbers: "array[float]" = field(default_factory=lambda: array("f"))
    seen: set[float] = field(default_factory=set)
    texts: int = 0
    first_text: tuple[int, str] = (0, "")

    def add(self, cell: Cell, line: int, path: Path) -> None:
        value = math.nan
        if isinstance(cell, str):
            key = cell.strip().casefold()
            if key in _WORDS:
                value = _WORDS[key]
            elif key not in _MISSING:
                try:
                    value = float(cell)
                except ValueError:
                    self.texts += 1
                    if self.texts == 1:
                        self.first_text = (line, cell)
        elif cell is not None and cell == cell:  # not NaN, which Python writes into JSON as a number
            value = float(cell) if abs(cell) <= LARGEST else math.inf  # an integer may exceed any float
        if abs(value) > LARGEST:
            raise DataError(
                f"{path}:{line}: {self.name} is infinite or too large", hint="leave unknown values empty"
            )
        if len(self.seen) <= FEW_VALUES and not math.isnan(value):
            self.seen.add(value)
        self.numbers.append(value)


def find_table(folder: Path) -> Path:
    """Find the table of an image folder: `metadata.csv`, `.tsv` or `.jsonl`, else the only file of these types.

    Raises:
        DataError: there is no table, or there are several to choose from.
    """
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".jsonl"))
    tables = [path for path in tables if path.is_file() and not is_macos_leftover(path)]
    named = [path for path in tables if path.stem.lower() == "metadata"]
    found = named or tables
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(path.name for path in found[:5])
        raise DataError(f"{folder} contains several tables ({listed})", hint="choose one with --table")
    if not any(folder.iterdir()):
        raise DataError(
            f"{folder} is empty",
            hint=f"it should contain images and a table metadata.csv with a column {FILE_COLUMN}",
        )
    raise DataError(
        f"{folder} has no table of attributes",
        hint=f"add metadata.csv with a column {FILE_COLUMN} and one column per attribute, or name a "
        "table with --table",
    )


def read_table(path: Path, known: Mapping[str, Kind] | None = None) -> Table:
    """Read a table of file names and attributes.

    Args:
        known: kinds of a model's attributes, if the table is about a model. In a column of a continuous one, -1 is
            itself; text in a column of any of them is an error.

    Raises:
        DataError: with file and line: the table is missing, not UTF-8, or has no rows or attributes; rows differ in
            length; a name is empty, repeated or leaves the folder; a value is infinite, or text among numbers; or a
            split is unknown.
    """
    known = known or {}
    rows = iter(
        jsonl_rows(path) if path.suffix.lower() == ".jsonl" else delimited_rows(open_text(path), path)
    )
    file_names: list[str] = []
    lines_by_name: dict[str, int] = {}
    splits = bytearray()
    columns: dict[str, _Column] = {}
    has_split = False
    for line, row in rows:
        if not columns and not file_names:
            if FILE_COLUMN not in row:
                raise _no_file_column(path, row)
            has_split = SPLIT_COLUMN in row
            names = [name for name in row if name and name not in (FILE_COLUMN, SPLIT_COLUMN)]
            check_columns(names, path)
            columns = {name: _Column(name) for name in names}
        name = safe_name(row[FILE_COLUMN], path, line)
        if name in lines_by_name:
            raise DataError(
                f"{path}:{line}: {name} is already in line {lines_by_name[name]}",
                hint="each image has one line; delete one of the two",
            )
        lines_by_name[name] = line
        file_names.append(name)
        if has_split:
            splits.append(split_code(row[SPLIT_COLUMN], f"{path}:{line}"))
        for column in columns.values():
            column.add(row[column.name], line, path)
    if not file_names:
        raise DataError(f"{path} has no rows", hint="add a line for each image below the header")
    left_out = {name: why for name, column in columns.items() if (why := _why_unusable(column, path, known))}
    notes = [f"Column {name} was left out: {why}." for name, why in left_out.items()]
    kept = [column for name, column in columns.items() if name not in left_out]
    if not kept:
        first = next(iter(left_out.items()), None)
        why = f" that can be used: {first[0]} was left out: {first[1]}" if first else ""
        raise DataError(f"{path} has no attribute columns{why}", hint=f"add columns beside {FILE_COLUMN}")
    arrays = [np.frombuffer(column.numbers, np.float32) for column in kept]
    kinds = tuple(_kind(column, notes, known.get(column.name)) for column in kept)
    for number, (column, values) in enumerate(zip(kept, arrays, strict=True)):
        if kinds[number] == "binary" and -1.0 in column.seen:
            arrays[number] = np.where(np.isnan(values), values, (values > 0).astype(np.float32))
    return Table(
        file_names=file_names,
        names=tuple(column.name for column in kept),
        kinds=kinds,
        values_NA=np.stack(arrays, axis=1),
        splits_N=np.frombuffer(bytes(splits), np.uint8) if has_split else None,
        notes=notes,
        left_out=left_out,
    )


def _why_unusable(column: _Column, path: Path, known: Collection[str]) -> str | None:
    labelled = len(column.numbers) - int(np.isnan(np.frombuffer(column.numbers, np.float32)).sum())
    if column.texts:
        line, text = column.first_text
        if labelled > column.texts or column.name in known:
            raise DataError(
                f"{path}:{line}: {column.name} is {_begun(text)!r}, not a number",
                hint="attributes are numbers, true/false or yes/no; leave unknown values empty",
            )
        return f"it contains text, such as {_begun(text)!r} in line {line}"
    return None if labelled else "it is empty"


def _begun(text: str) -> str:
    """A cell as a message shows it: the first words, if it is a whole description."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _kind(column: _Column, notes: list[str], known: Kind | None) -> Kind:
    if known == "continuous":
        return known
    if column.seen <= {0.0, 1.0} or column.seen <= {-1.0, 1.0}:
        if len(column.seen) == 1:
            notes.append(f"Column {column.name} has the same value in every row.")
        return "binary"
    if len(column.seen) <= 2:
        values = " and ".join(f"{value:g}" for value in sorted(column.seen))
        notes.append(
            f"Column {column.name} contains only {values} and was treated as continuous; "
            "write 0 and 1 for a binary attribute."
        )
    elif len(column.seen) <= FEW_VALUES and all(value.is_integer() for value in column.seen):
        low, high = min(column.seen), max(column.seen)
        notes.append(
            f"Column {column.name} contains only {len(column.seen)} different whole numbers "
            f"({low:.0f} to {high:.0f}) and was treated as continuous. That suits counts and grades. If one of them "
            "means unknown, leave its cells empty; if they are categories, write a column of 0 and 1 for each."
        )
    return "continuous"


def _no_file_column(path: Path, names: Iterable[str]) -> DataError:
    names = list(names)
    near = nearest(FILE_COLUMN, [name for name in names if name])
    question = f" (is it {near}?)" if near else ""
    return DataError(
        f"{path}:1: no column {FILE_COLUMN}{question}",
        hint=f"the columns are {', '.join(names[:12])}" + (", …" if len(names) > 12 else ""),
    )


def check_columns(names: Sequence[str], path: Path) -> None:
    """Refuse attribute names that cannot be shown, stored or typed, and implausibly many columns.

    Raises:
        DataError: more than `MOST_COLUMNS` names, or an invalid one; the message gives the first.
    """
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"{path}:1: {len(names):,} columns are too many (limit {MOST_COLUMNS:,})",
            hint=f"keep {FILE_COLUMN} and the attributes that you want to change or to adjust for",
        )
    for name in names:
        if not is_attribute_name(name):
            raise DataError(
                f"{path}:1: {name!r} is not a valid attribute name",
                hint=f"use at most {LONGEST_NAME} printable characters",
            )


def safe_name(cell: Cell, path: Path, line: int) -> str:
    """The cell as a name within the image folder, with forward slashes; DataError if it is not one.

    Tables may come from untrusted sources.
    """
    if isinstance(cell, str) and _PLAIN_NAME.fullmatch(cell):
        return cell  # skipping the path handling below halves the time for a million rows
    if cell is not None and not isinstance(cell, str):
        raise DataError(
            f"{path}:{line}: {FILE_COLUMN} is {cell!r}, not text",
            hint='write the name in quotes, as in "17.jpg"',
        )
    if not cell or not cell.strip():
        raise DataError(
            f"{path}:{line}: {FILE_COLUMN} is empty", hint="name the line's image, or delete the line"
        )
    if not cell.isascii() and any("\ud800" <= letter <= "\udfff" for letter in cell):
        raise DataError(
            f"{path}:{line}: {FILE_COLUMN} {cell!r} is not Unicode text",
            hint="rename the image, using plain letters and digits",
        )
    name = PurePosixPath(cell.strip().replace("\\", "/"))
    if name.is_absolute() or PureWindowsPath(name).drive or ".." in name.parts or "\0" in cell:
        raise DataError(
            f"{path}:{line}: {FILE_COLUMN} {cell!r} leaves the image folder",
            hint="use names that are relative to the folder and stay inside it",
        )
    return str(name)


def open_text(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, with or without a byte-order mark, with any line endings.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            yield from numbered_lines(file, path)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", hint=hint_on_reading(error)
        ) from error


def numbered_lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """Like `open_text`, for an open file, which may be inside an archive; `path` is for messages."""
    line = 0
    try:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig")
        for line, text in enumerate(iter(lambda: lines.readline(LONGEST_LINE + 1), ""), start=1):
            if len(text) > LONGEST_LINE:
                raise DataError(
                    f"{path}:{line}: the line is longer than {LONGEST_LINE:,} characters",
                    hint="is it a text table with one line for each image?",
                )
            yield line, text
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{line + 1}: not UTF-8 text", hint="save the table as UTF-8") from error


def delimited_rows(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[tuple[int, dict[str, Cell]]]:
    """Rows of comma-, semicolon- or tab-separated lines, as (line number, cells by column).

    Raises:
        DataError: there is no header, a column is named twice, or a row is longer or shorter than the header.
    """
    lines = iter(lines)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty", hint=f"it needs a header line with a column {FILE_COLUMN}")
    number = first[0]

    def texts() -> Iterator[str]:
        nonlocal number
        assert first is not None
        yield first[1]
        for number, text in lines:  # noqa: B007  (number is read by the outer loop)
            yield text

    csv.field_size_limit(LONGEST_LINE)  # of a cell, which may fill a line or span several
    reader = csv.reader(texts(), delimiter=_delimiter(path, first[1]), strict=True)
    try:
        header = [" ".join(name.split()) for name in next(reader)]
        _refuse_repeats(header, path)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{number}: {len(cells)} cells for {len(header)} columns",
                    hint="leave unknown values empty between the separators; put text that contains a separator "
                    "in double quotes",
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}:{number}: {error}",
            hint="close each double quote on its own line, and write a double quote within text twice",
        ) from error


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    # In many countries, spreadsheets separate the columns of .csv files by semicolons.
    return next((mark for mark in ",;\t" if mark in header), ",")


def _refuse_repeats(header: Sequence[str], path: Path) -> None:
    repeated = repeated_name(name for name in header if name)
    if repeated is not None:
        raise DataError(
            f"{path}:1: column {repeated} appears twice", hint="rename one of the two, or delete it"
        )


def repeated_name(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Cell]]]:
    header: set[str] | None = None
    for number, text in open_text(path):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a JSON object: {error}", hint=_JSON_HINT) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object", hint=_JSON_HINT)
        for name, cell in row.items():
            if isinstance(cell, dict | list):
                raise DataError(
                    f"{path}:{number}: {name} is not a number, text or null",
                    hint="give each of its parts a key of its own",
                )
        header = set(row) if header is None else header
        if set(row) != header:
            odd = sorted(set(row) ^ header)[0]
            raise DataError(
                f"{path}:{number}: key {odd!r} is not in every line", hint="write null for an unknown value"
            )
        yield number, row
