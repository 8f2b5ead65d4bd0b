"""Counterfactuals made by any other program, read from a folder with a table, so that they can be scored as ours are.

The table, `counterfactuals.csv` (comma-, semicolon- or tab-separated), has a row for each picture:

    file_name       the counterfactual, below the folder
    source          the prepared image that it answers: `test[17]`, or that image's own file name
    <treatment>     the value that was intended, one column for each treatment
    reconstruction  (optional) the program's picture of the source without intervention
    method          (optional) which of several programs; without it, all rows are one method's
"""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData, Truth
from civae_core.data.images import load_photo
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows
from civae_core.data.selection import parse_selection
from civae_core.data.splits import SPLITS, Split
from civae_core.data.tables import FILE_COLUMN, Cell, delimited_rows, open_text, safe_name
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.question import KnownTruth, Question, ask, find_rows
from civae_core.figures.pictures import to_picture, write_png
from civae_core.files import write_text

log = logging.getLogger(__name__)

TABLE = "counterfactuals.csv"
SOURCE, RECONSTRUCTION, METHOD = "source", "reconstruction", "method"

Key = tuple[int, tuple[float, ...]]
"""What is answered: a row of the prepared data, and the intended treatments."""


@dataclass(frozen=True)
class ForeignMethod:
    """One program's pictures; they are read when they are asked for."""

    name: str
    files: Mapping[Key, tuple[Path, Path | None]]
    preprocessing: Mapping[str, object]

    def answer(self, asked: Asked) -> Answer:
        """Reads the pictures that answer a batch.

        Raises:
            DataError: a file is missing, damaged, or of another size than the prepared images.
        """
        keys = [_key(int(row), t_T) for row, t_T in zip(asked.rows_B, asked.t_new_BT, strict=True)]
        files = [self.files[key] for key in keys]
        images_BCHW = torch.stack([self._read(file) for file, _ in files]).to(asked.y_BCHW.device)
        if any(reconstruction is None for _, reconstruction in files):
            return Answer(images_BCHW)
        reconstructions = [self._read(file) for _, file in files if file is not None]
        return Answer(images_BCHW, images_BCHW, torch.stack(reconstructions).to(asked.y_BCHW.device))

    def _read(self, file: Path) -> Tensor:
        require_size(file, int(str(self.preprocessing["size"])))
        return load_photo(file, {**self.preprocessing, "crop": None, "crop_of": None}).float() / 255


@dataclass(frozen=True)
class ForeignImages:
    """All methods of a folder, which answer the same questions."""

    folder: Path
    methods: tuple[ForeignMethod, ...]
    rows_N: Tensor
    t_new_NT: Tensor
    """Intended values, one column for each treatment that the table has."""
    treatments: tuple[str, ...]


def open_foreign(
    folder: Path,
    data: PreparedData,
    treatments: Sequence[str],
    *,
    name: str | None = None,
    table: str = TABLE,
) -> ForeignImages:
    """Reads a folder's table and checks that every picture is there; none of them is opened yet.

    Args:
        treatments: attributes whose columns are the intended values; empty takes every column that is an attribute.
        name: of the method where the table has no such column; left out, the folder's.

    Raises:
        UsageError: there is no such folder or table, or a treatment without a column.
        DataError: a row that cannot be understood, names a file that is not there or leaves the folder, or answers
            what another row answers; or methods that answer different questions.
    """
    path = folder / table
    if not path.is_file():
        raise UsageError(
            f"--images {folder}: has no table {table}",
            hint="`civae evaluate --questions DIR` writes one to fill in",
        )
    sources = _Sources(data)
    chosen: tuple[str, ...] | None = None
    found: dict[str, dict[Key, tuple[Path, Path | None]]] = {}
    for line, cells in delimited_rows(open_text(path), path):
        if chosen is None:
            chosen = _treatment_columns(cells, data, treatments, path)
        where = f"{path}:{line}"
        row = sources.row(_text(cells, SOURCE, where), where)
        values = torch.tensor([_number(cells, column, where) for column in chosen], dtype=torch.float32)
        picture = _file(folder, cells[FILE_COLUMN], path, line)
        other = cells.get(RECONSTRUCTION)
        reconstruction = _file(folder, other, path, line) if str(other or "").strip() else None
        method = str(cells.get(METHOD) or "").strip() or name or folder.resolve().name
        files = found.setdefault(method, {})
        key = _key(row, values)
        if key in files:
            raise DataError(f"{where}: {method} has answered this already, with {files[key][0].name}")
        files[key] = picture, reconstruction
    if chosen is None:
        raise DataError(f"{path}: has no rows")
    _require_same_questions(found, path)
    keys = list(next(iter(found.values())))
    return ForeignImages(
        folder,
        tuple(ForeignMethod(name, files, data.preprocessing) for name, files in found.items()),
        torch.tensor([row for row, _ in keys]),
        torch.tensor([list(values) for _, values in keys]),
        chosen,
    )


def foreign_questions(foreign: ForeignImages, data: PreparedData, roles: AttributeRoles) -> list[Question]:
    """What the pictures answer: those whose truth the data knows first, the others, if any, as a second question.

    Raises:
        UsageError: a treatment of the question has no column in the table.
        DataError: a source's treatment or covariate is unknown.
    """
    names = [attribute.name for attribute in roles.treatments]
    for name in foreign.treatments:
        if name not in names:
            raise UsageError(f"--images {foreign.folder}: {name} has intended values, but is no treatment")
    rows_N = foreign.rows_N
    t_NT = torch.stack([data.column(name)[rows_N] for name in names], dim=1)
    covariates = [data.column(attribute.name)[rows_N] for attribute in roles.covariates]
    x_NX = torch.stack(covariates, dim=1) if covariates else torch.zeros(len(rows_N), 0)
    unknown_N = torch.cat([t_NT, x_NX], dim=1).isnan().any(dim=1)
    if unknown_N.any():
        first = data.file_names[int(rows_N[unknown_N][0])]
        raise DataError(
            f"--images {foreign.folder}: {first} lacks a treatment or covariate in {data.path}, "
            f"and {int(unknown_N.sum())} sources in all"
        )
    t_new_NT = t_NT.clone()
    for column, name in enumerate(foreign.treatments):
        t_new_NT[:, names.index(name)] = foreign.t_new_NT[:, column]
    chosen = LabelledRows(rows_N, x_NX, t_NT)
    truth, places_N = _matching_truth(data, names, rows_N, t_new_NT)
    known_N = places_N >= 0
    if truth is not None and not known_N.all():
        log.warning("the truth is known of %d of %d answers", int(known_N.sum()), len(known_N))
    questions = []
    for kept_N, with_truth in ((known_N, True), (~known_N, False)):
        if kept_N.any():
            known = KnownTruth(truth, places_N[kept_N]) if with_truth and truth is not None else None
            do = _described(names, t_NT[kept_N], t_new_NT[kept_N], foreign.treatments)
            questions.append(Question(chosen[kept_N], t_new_NT[kept_N], do, known))
    return questions


def answering(foreign: ForeignImages, roles: AttributeRoles, data: PreparedData) -> list[ForeignMethod]:
    """The methods, with their pictures found by all treatments of the question, also those they leave alone."""
    names = [attribute.name for attribute in roles.treatments]
    columns = [foreign.treatments.index(name) if name in foreign.treatments else None for name in names]
    table_NT = torch.stack([data.column(name) for name in names], dim=1)

    def whole(key: Key) -> Key:
        row, values = key
        kept = [
            table_NT[row, place] if column is None else torch.tensor(values[column])
            for place, column in enumerate(columns)
        ]
        return _key(row, torch.stack(kept))

    return [
        ForeignMethod(
            method.name, {whole(key): files for key, files in method.files.items()}, method.preprocessing
        )
        for method in foreign.methods
    ]


def write_split_questions(
    data: PreparedData, roles: AttributeRoles, folder: Path, *, split: Split, limit: int | None = None
) -> Path:
    """`write_questions` for what `evaluate` would ask a model about a split; refuses to overwrite a table.

    Raises:
        UsageError: the folder holds a table already.
    """
    if (folder / TABLE).exists():
        raise UsageError(f"--questions {folder}: holds {TABLE} already", hint="name a new folder")
    chosen = labelled_rows(data, roles, split)
    question = ask(data, roles, chosen[evenly_spread(len(chosen), limit or len(chosen))])[0]
    return write_questions(data, question, roles, folder)


def write_questions(data: PreparedData, question: Question, roles: AttributeRoles, folder: Path) -> Path:
    """Writes what another program is to answer: the sources as PNG files, and the table to send back with answers.

    Each row's `file_name` says where the answer is looked for; `source_image`, which is ignored on the way back, is
    the picture to change. Returns the table's path.

    Raises:
        CivaeError: the folder cannot be written.
    """
    names = [attribute.name for attribute in roles.treatments]
    asked = [name for name in names if name in question.do]
    place = {int(row): f"{split}[{i}]" for split in SPLITS for i, row in enumerate(data.rows(split).tolist())}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([FILE_COLUMN, SOURCE, "source_image", *asked])
    for number, row in enumerate(question.chosen.rows_N.tolist()):
        image = f"sources/{place[row].replace('[', '-').rstrip(']')}.png"
        write_png(folder / image, to_picture(data.images(torch.tensor([row]))[0]))
        values = [question.t_new_NT[number, names.index(name)].item() for name in asked]
        writer.writerow([f"answers/{number:06d}.png", place[row], image, *(f"{value:g}" for value in values)])
    write_text(folder / TABLE, text.getvalue())
    return folder / TABLE


def require_size(file: Path, size: int) -> None:
    """
    Raises:
        DataError: the file is no picture, or not `size` × `size` pixels.
    """
    try:
        with Image.open(file) as picture:
            found = picture.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise DataError(f"{file}: not a readable picture") from error
    if found != (size, size):
        raise DataError(
            f"{file}: {found[0]}×{found[1]} pixels, the prepared images have {size}×{size}",
            hint="save the counterfactuals at the size of their sources",
        )


class _Sources:
    """From what a table calls an image to its row."""

    def __init__(self, data: PreparedData) -> None:
        self._data = data
        self._rows: dict[str, int] = {}
        self._repeated: set[str] = set()
        for row, name in enumerate(data.file_names):
            if name in self._rows:
                self._repeated.add(name)
            self._rows[name] = row

    def row(self, source: str, where: str) -> int:
        if source in self._repeated:
            raise DataError(f"{where}: {self._data.path} has several images called {source}", hint=_HINT)
        if source in self._rows:
            return self._rows[source]
        selection = parse_selection(f"{self._data.path}#{source}") if source.endswith("]") else None
        if selection is None or selection.stop is None or selection.stop != selection.start + 1:
            raise DataError(f"{where}: source {source!r} is no image of {self._data.path}", hint=_HINT)
        try:
            return int(selection.rows(self._data)[0])
        except UsageError as error:
            raise DataError(f"{where}: {error.message}", hint=error.hint) from error


_HINT = "write the prepared image's file name, or its place in a split, such as test[17]"


def _key(row: int, values_T: Tensor) -> Key:
    return row, tuple(values_T.to(torch.float32).tolist())


def _treatment_columns(
    cells: Mapping[str, Cell], data: PreparedData, treatments: Sequence[str], path: Path
) -> tuple[str, ...]:
    columns = ", ".join(cells)
    for column in (FILE_COLUMN, SOURCE):
        if column not in cells:
            raise DataError(f"{path}:1: no column {column}", hint=f"the columns are {columns}")
    wanted = list(treatments) or [a.name for a in data.attributes]
    found = tuple(name for name in wanted if name in cells)
    if not found:
        raise DataError(
            f"{path}:1: no column says which treatment was intended ({', '.join(wanted[:6])})",
            hint=f"the columns are {columns}",
        )
    return found


def _text(cells: Mapping[str, Cell], column: str, where: str) -> str:
    text = str(cells.get(column) or "").strip()
    if not text:
        raise DataError(f"{where}: {column} is empty")
    return text


def _number(cells: Mapping[str, Cell], column: str, where: str) -> float:
    text = _text(cells, column, where)
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {column} is {text!r}, not a number") from error
    if not math.isfinite(value) or abs(value) > torch.finfo(torch.float32).max:
        raise DataError(f"{where}: {column} is {text}, which is no value that can be intended")
    return value


def _file(folder: Path, cell: Cell, table: Path, line: int) -> Path:
    file = folder / safe_name(cell, table, line)
    if not file.is_file():
        raise DataError(f"{table}:{line}: there is no file {file}")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{table}:{line}: {file} is a link that leaves the folder")
    return file


def _require_same_questions(found: Mapping[str, Mapping[Key, object]], path: Path) -> None:
    (first, wanted), *others = found.items()
    for name, files in others:
        for has, lacks, who in ((wanted, files, name), (files, wanted, first)):
            missing = [key for key in has if key not in lacks]
            if missing:
                row, values = missing[0]
                raise DataError(
                    f"{path}: {who} has no answer for image {row} under {values}; {len(missing)} are missing in all",
                    hint="all methods of a table answer the same questions",
                )


def _matching_truth(
    data: PreparedData, names: list[str], rows_N: Tensor, t_new_NT: Tensor
) -> tuple[Truth | None, Tensor]:
    """The truth that knows most of the answers, and where each answer's truth stands in it, −1 where it does not."""
    columns = [[a.name for a in data.attributes].index(name) for name in names]
    best: Truth | None = None
    best_places_N = torch.full_like(rows_N, -1)
    for truth in data.truth:
        places_N = find_rows(truth.rows, rows_N)
        agrees_N = (truth.table_MA[places_N.clamp(min=0)][:, columns] == t_new_NT).all(dim=1)
        places_N = torch.where(agrees_N, places_N, -1)
        # A truth under other interventions besides has other attributes changed as well.
        if set(truth.do) <= set(names) and (places_N >= 0).sum() > (best_places_N >= 0).sum():
            best, best_places_N = truth, places_N
    return best, best_places_N


def _described(
    names: list[str], t_NT: Tensor, t_new_NT: Tensor, asked: Sequence[str]
) -> dict[str, float | str]:
    """The interventions in short: `flip`, a value that all share, or `as listed`."""
    do: dict[str, float | str] = {}
    for name in asked:
        old_N, new_N = (t[:, names.index(name)] for t in (t_NT, t_new_NT))
        if len(new_N.unique()) == 1:
            do[name] = float(new_N[0])
        else:
            do[name] = "flip" if bool((new_N == 1 - old_N).all()) else "as listed"
    return do
