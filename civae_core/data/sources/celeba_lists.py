"""CelebA's two lists, attributes and partition, as the official text files or as Kaggle's CSV files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from civae_core.data.splits import split_code
from civae_core.data.tables import Table, check_columns, delimited_rows, repeated_name
from civae_core.errors import DataError

Lines = Iterable[tuple[int, str]]
_INCOMPLETE_HINT = "download the list again; this copy is incomplete or was changed"
_TWICE_HINT = "delete one of the two lines"
_LABELS = {"-1": 0.0, "0": 0.0, "1": 1.0}


def read_attributes(lines: Lines, path: Path) -> Table:
    """Read list_attr_celeba.txt or .csv; labels -1/1 or 0/1 become 0/1.

    Raises:
        DataError: with file and line: the header is missing or repeats a name, a row differs in length, a label is
            invalid, an image is listed twice or not by a plain file name, or there are no images.
    """
    rows = _rows(lines, path)
    _, header = next(rows, (1, []))
    # The header of the text file names only the attributes; that of the CSV also names the image column.
    names = header[1:] if path.suffix.lower() == ".csv" else header
    repeated = repeated_name(names)
    if repeated is not None:
        raise DataError(
            f"{path}: attribute {repeated} appears twice", hint="rename one of the two in the list's header"
        )
    check_columns(names, path)
    file_names: list[str] = []
    seen: set[str] = set()
    values: list[np.ndarray] = []
    for line, cells in rows:
        if len(cells) != len(names) + 1:
            raise DataError(
                f"{path}:{line}: {len(cells) - 1} labels for {len(names)} attributes", hint=_INCOMPLETE_HINT
            )
        if cells[0] in seen:
            raise DataError(f"{path}:{line}: {cells[0]} is listed twice", hint=_TWICE_HINT)
        if set("/\\\0") & set(cells[0]) or cells[0] in (".", ".."):
            raise DataError(
                f"{path}:{line}: {cells[0]!r} is not a plain file name",
                hint="remove the folder from the name; all images are in one folder, img_align_celeba",
            )
        try:
            labels = [_LABELS[cell] for cell in cells[1:]]
        except KeyError as error:
            raise DataError(
                f"{path}:{line}: {error.args[0]!r} is not a label", hint="labels are -1/1 or 0/1"
            ) from error
        seen.add(cells[0])
        file_names.append(cells[0])
        values.append(np.array(labels, np.float32))
    if not file_names:
        raise DataError(f"{path} lists no images", hint=_INCOMPLETE_HINT)
    binary: Literal["binary"] = "binary"
    return Table(
        file_names=file_names,
        names=tuple(names),
        kinds=tuple(binary for _ in names),
        values_NA=np.stack(values),
        splits_N=None,
        notes=[],
    )


def read_partition(lines: Lines, path: Path, file_names: Iterable[str]) -> np.ndarray:
    """Read the split of each named image from list_eval_partition.txt or .csv, uint8 [N].

    Raises:
        DataError: with file and line: a row is malformed, an image is listed twice, or an image has no split.
    """
    codes: dict[str, int] = {}
    for line, cells in _rows(lines, path):
        if len(cells) != 2:
            raise DataError(
                f"{path}:{line}: expected an image and its partition, got {len(cells)} cells",
                hint="write a file name and 0, 1 or 2 (train, valid or test) on each line",
            )
        if line == 1 and cells[1] == "partition":
            continue
        if cells[0] in codes:
            raise DataError(f"{path}:{line}: {cells[0]} is listed twice", hint=_TWICE_HINT)
        codes[cells[0]] = split_code(cells[1], f"{path}:{line}")
    try:
        return np.array([codes[name] for name in file_names], np.uint8)
    except KeyError as error:
        raise DataError(
            f"{path} does not list {error.args[0]}", hint="use two lists from the same release"
        ) from error


def _rows(lines: Lines, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered cells of each line: of a CSV file with its header, or of a text file after an optional count line."""
    if path.suffix.lower() == ".csv":
        for number, (line, row) in enumerate(delimited_rows(lines, path)):
            if number == 0:
                yield 1, list(row)
            yield line, [cell.strip() if isinstance(cell, str) else "" for cell in row.values()]
        return
    for line, text in lines:
        cells = text.split()
        if cells and not (line == 1 and len(cells) == 1 and cells[0].isdecimal()):
            yield line, cells
