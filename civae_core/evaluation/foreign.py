"""Counterfactuals made by other programs, scored as ours are, and the questions that those programs are to answer.

`foreign_table.py` describes the folder that holds the answers.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from civae_core.assignments import do_text
from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.data.splits import Split
from civae_core.data.tables import FILE_COLUMN
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.foreign_table import (
    FACTUAL,
    SOURCE,
    SOURCE_IMAGE,
    TABLE,
    Listed,
    described_rows,
    find_answers,
    read_answers,
    read_picture,
    require_pictures,
)
from civae_core.evaluation.naming import MEANINGS
from civae_core.evaluation.question import Question, about_changed, ask_split, by_known_truth
from civae_core.files import write_json, write_text
from civae_core.inference.png import write_image
from civae_core.progress import progress
from civae_core.reading import read_json

log = logging.getLogger(__name__)

ORIGIN = "questions.json"
"""Written beside a table of questions: which data its row numbers belong to."""

Key = tuple[int, tuple[float, ...]]
"""What a picture answers: a row of the prepared data, and the intended treatments."""
Files = tuple[Path, Path | None]
"""A counterfactual and, where there is one, the reconstruction of its source."""


@dataclass(frozen=True)
class ForeignMethod:
    """One program's pictures, which are read when asked for."""

    name: str
    treatments: tuple[str, ...]
    """In the order of `Asked.t_new_BT`."""
    files: Mapping[Key, Files]
    data: PreparedData

    def answer(self, asked: Asked) -> Answer:
        """Read the pictures that answer a batch.

        A program that provides reconstructions has one noise level: its counterfactual is then also compared with
        its reconstruction (τ = 0), so that its blur is not taken for a change.

        Raises:
            DataError: the program has no answer to a question, or a file has changed since the folder was opened.
        """
        files = [self._files_of(key) for key in _keys(asked.rows_B, asked.t_new_BT)]
        device = asked.y_BCHW.device
        images_BCHW = self._read([picture for picture, _ in files]).to(device)
        reconstructions = [file for _, file in files if file is not None]
        if not reconstructions:
            return Answer(images_BCHW)
        return Answer(images_BCHW, images_BCHW, self._read(reconstructions).to(device))

    def _files_of(self, key: Key) -> Files:
        found = self.files.get(key)
        if found is None:
            raise DataError(
                f"{self.name} has no picture that answers {_key_text(key, self.treatments, self.data)}",
                hint="`civae evaluate --questions DIR` writes every question that is asked",
            )
        return found

    def _read(self, files: Sequence[Path]) -> Tensor:
        return torch.stack([read_picture(file, self.data) for file in files]).float() / 255


@dataclass(frozen=True)
class ForeignImages:
    """All methods of a folder; they answer the same questions, sorted by row and then by intended values."""

    folder: Path
    treatments: tuple[str, ...]
    rows_N: Tensor
    t_new_NT: Tensor
    """Intended values, one column for each treatment in the table."""
    files: Mapping[str, Sequence[Files]]
    """The pictures [N] of each method."""


def open_foreign(folder: Path, data: PreparedData, treatments: Sequence[str]) -> ForeignImages:
    """Read a folder's table, and every picture once, so that errors are found before the work and not after it.

    Rows that name no method belong to one that is named after the folder.

    Args:
        treatments: attributes whose columns hold the intended values; if empty, all columns that are attributes.

    Raises:
        UsageError: there is no such folder or table, or there are several tables.
        DataError: the questions were written for other data; a row cannot be understood, or answers the same as
            another row; methods answer different questions; or pictures are unusable.
    """
    path = find_answers(folder)
    _require_origin(folder, data)
    chosen, listed = read_answers(path, folder, data, treatments, folder.resolve().name)
    answers = _by_method(listed, path)
    _require_same_questions(answers, chosen, path, data)
    require_pictures(path, folder, listed, data)
    keys = sorted(next(iter(answers.values())))
    rows_N = torch.tensor([row for row, _ in keys])
    learned = int(torch.isin(rows_N, data.rows("train")).sum())
    if learned:
        log.warning(
            "%s: %d of %d answers are about images of the train split: they say little about a program "
            "that was trained on them",
            path,
            learned,
            len(keys),
        )
    return ForeignImages(
        folder=folder,
        treatments=chosen,
        rows_N=rows_N,
        t_new_NT=torch.tensor([values for _, values in keys]),
        files={
            method: [(found[key].picture, found[key].reconstruction) for key in keys]
            for method, found in answers.items()
        },
    )


def foreign_questions(foreign: ForeignImages, data: PreparedData, roles: AttributeRoles) -> list[Question]:
    """The questions that the pictures answer: one per known truth, most answers first, and one for the rest.

    A subject may be asked about several times, as in a sweep. Rows that intend no change are left out, with a
    warning.

    Raises:
        UsageError: a treatment of the table is not among those of the roles.
        DataError: a source's treatment or covariate is unknown, or no row intends a change.
    """
    rows_N = foreign.rows_N
    t_NT = data.columns([a.name for a in roles.treatments])[rows_N]
    x_NX = data.columns([a.name for a in roles.covariates])[rows_N]
    t_new_NT = _intended(foreign, data, roles)
    unknown_N = torch.cat([t_NT, x_NX], dim=1).isnan().any(dim=1)
    if unknown_N.any():
        (first,) = described_rows([int(rows_N[unknown_N][0])], data)
        raise DataError(
            f"--images {foreign.folder}: {first} lacks a treatment or covariate in {data.path}; "
            f"in all, the sources of {int(unknown_N.sum()):,} of {len(rows_N):,} answers do",
            hint="complete the table and prepare the data again, or delete the lines of these sources",
        )
    changed_N = (t_new_NT != t_NT).any(dim=1)
    if not changed_N.any():
        raise DataError(
            f"--images {foreign.folder}: no row intends a change: the sources already have the intended "
            f"values of {', '.join(foreign.treatments)}",
            hint="a treatment's column holds the value that was set, not the subject's own",
        )
    asked = int(changed_N.sum())
    if asked < len(rows_N):
        log.warning(
            "%s: %d of %d answers intend no change and are left out: their sources already have the intended values",
            foreign.folder,
            len(rows_N) - asked,
            len(rows_N),
        )
    found = []
    for kept_N, truth in by_known_truth(data, [a.name for a in roles.treatments], rows_N, t_new_NT):
        asked_N = kept_N & changed_N
        do = _described(roles, t_NT[asked_N], t_new_NT[asked_N])
        rows = LabelledRows(rows_N[kept_N], x_NX[kept_N], t_NT[kept_N])
        found.append(about_changed(rows, t_new_NT[kept_N], do, truth))
    questions = [question for question in found if question is not None]
    questions.sort(key=lambda question: (question.truth is None, -len(question.chosen)))
    known = sum(len(question.chosen) for question in questions if question.truth is not None)
    if 0 < known < asked:
        log.warning(
            "%s: the truth is known for %d of %d answers; the others are scored separately, without it",
            foreign.folder,
            known,
            asked,
        )
    return questions


def answering(foreign: ForeignImages, roles: AttributeRoles, data: PreparedData) -> list[ForeignMethod]:
    """The methods, with their pictures keyed by all treatments of the roles, also those without a column."""
    keys = _keys(foreign.rows_N, _intended(foreign, data, roles))
    treatments = tuple(attribute.name for attribute in roles.treatments)
    return [
        ForeignMethod(name, treatments, dict(zip(keys, files, strict=True)), data)
        for name, files in foreign.files.items()
    ]


def write_split_questions(
    data: PreparedData, roles: AttributeRoles, folder: Path, *, split: Split, limit: int | None = None
) -> Path:
    """Call `write_questions` for the first question that `evaluate` would ask a model about a split.

    Raises:
        UsageError: the folder already holds a table.
        DataError: as in `ask_split`.
    """
    if (folder / TABLE).exists():
        raise UsageError(f"--questions {folder}: already holds {TABLE}", hint="name a new folder")
    question = ask_split(data, roles, split, limit)[0]
    return write_questions(data, question, roles, folder)


def write_questions(data: PreparedData, question: Question, roles: AttributeRoles, folder: Path) -> Path:
    """Write what another program is to answer: the sources as PNG files, and the table to return with the answers.

    Each row's `file_name` says where the answer is expected. Some columns only inform the program, and are ignored
    when the table comes back: `source_image`, the picture to change, and columns such as `factual_Male`, what is
    known about its subject. The table is written last, so that it exists only if everything does.

    Returns:
        The table's path.

    Raises:
        CivaeError: the folder cannot be written.
    """
    columns = [i for i, attribute in enumerate(roles.treatments) if attribute.name in question.do]
    asked = [roles.treatments[i].name for i in columns]
    facts_NF = torch.cat([question.chosen.t_NT, question.chosen.x_NX], dim=1)
    factual = [f"{FACTUAL}{attribute.name}" for attribute in roles.inputs]
    rows = question.chosen.rows_N.tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([FILE_COLUMN, SOURCE, SOURCE_IMAGE, *asked, *factual])
    written: set[str] = set()
    with progress("writing questions", len(rows)) as bar:
        for number, (row, source) in enumerate(zip(rows, described_rows(rows, data), strict=True)):
            image = f"sources/{source.replace('[', '-').rstrip(']')}.png"
            if image not in written:
                write_image(folder / image, data.images(torch.tensor([row]))[0])
                written.add(image)
            values = [*question.t_new_NT[number, columns].tolist(), *facts_NF[number].tolist()]
            # Nine digits restore a float32 exactly: a rounded dose might match no known truth.
            writer.writerow([f"answers/{number:06d}.png", source, image, *(f"{v:.9g}" for v in values)])
            bar.advance()
    write_json(folder / ORIGIN, {"data": data.name, "fingerprint": data.fingerprint})
    write_text(folder / TABLE, text.getvalue())
    return folder / TABLE


def _require_origin(folder: Path, data: PreparedData) -> None:
    """Reject answers to questions about other data, in which `test[17]` is somebody else."""
    path = folder / ORIGIN
    if not path.is_file():
        return
    try:
        origin = read_json(path)
        fingerprint = origin["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged", hint="write the questions again, or delete it") from error
    if fingerprint != data.fingerprint:
        raise DataError(
            f"{path}: the questions are about other data ({origin.get('data')}) than {data.path}",
            hint="use --data to name the data that they were written from",
        )


def _by_method(listed: Sequence[Listed], path: Path) -> dict[str, dict[Key, Listed]]:
    found: dict[str, dict[Key, Listed]] = {}
    for row in listed:
        if row.method in MEANINGS:
            raise DataError(
                f"{path}:{row.line}: {row.method!r} is the name of one of civae's own methods",
                hint="name the program in a column `method`",
            )
        answers = found.setdefault(row.method, {})
        first = next(iter(answers.values()), row)
        earlier = answers.setdefault((row.row, row.values), row)
        if earlier is not row:
            raise DataError(
                f"{path}:{row.line}: {row.method} already answers this in line {earlier.line}",
                hint="delete one of the two lines, or distinguish two programs in a column `method`",
            )
        if (row.reconstruction is None) != (first.reconstruction is None):
            raise DataError(
                f"{path}:{row.line}: {row.method} has a reconstruction in this line or in line {first.line}, "
                "but not in both",
                hint="give one for each row of a method, or for none",
            )
    return found


def _require_same_questions(
    answers: Mapping[str, Mapping[Key, Listed]], treatments: Sequence[str], path: Path, data: PreparedData
) -> None:
    (first, wanted), *others = answers.items()
    for name, found in others:
        for has, lacks, who in ((wanted, found, name), (found, wanted, first)):
            missing = sorted(has.keys() - lacks.keys())
            if missing:
                asked = _key_text(missing[0], treatments, data)
                raise DataError(
                    f"{path}: {who} has no answer for {asked}, which line {has[missing[0]].line} answers; "
                    f"it lacks {len(missing):,} in all",
                    hint="let all methods of a table answer the same questions",
                )


def _intended(foreign: ForeignImages, data: PreparedData, roles: AttributeRoles) -> Tensor:
    """Intended values [N,T] of all treatments of the roles; those without a column in the table stay factual."""
    names = [attribute.name for attribute in roles.treatments]
    for name in foreign.treatments:
        if name not in names:
            raise UsageError(
                f"--images {foreign.folder}: {name} has intended values, but is not a treatment",
                hint=f"omit its column; the treatments are {', '.join(names)}",
            )
    t_new_NT = data.columns(names)[foreign.rows_N]
    for column, name in enumerate(foreign.treatments):
        t_new_NT[:, names.index(name)] = foreign.t_new_NT[:, column]
    return t_new_NT


def _described(roles: AttributeRoles, t_NT: Tensor, t_new_NT: Tensor) -> dict[str, float | str]:
    """The intervention on each treatment in short: `flip`, the value that all share, or `as listed`.

    A treatment that keeps its factual value in every row is not intervened on, even if the table has a column for it.
    """
    do: dict[str, float | str] = {}
    for column, attribute in enumerate(roles.treatments):
        old_N, new_N = t_NT[:, column], t_new_NT[:, column]
        if torch.equal(old_N, new_N):
            continue
        if len(new_N.unique()) == 1:
            do[attribute.name] = float(new_N[0])
        else:
            flipped = attribute.kind == "binary" and bool((new_N == 1 - old_N).all())
            do[attribute.name] = "flip" if flipped else "as listed"
    return do


def _keys(rows_N: Tensor, t_new_NT: Tensor) -> list[Key]:
    values = t_new_NT.to(torch.float32).tolist()
    return [(row, tuple(value_T)) for row, value_T in zip(rows_N.tolist(), values, strict=True)]


def _key_text(key: Key, treatments: Sequence[str], data: PreparedData) -> str:
    (source,) = described_rows([key[0]], data)
    return f"{source} under {do_text(dict(zip(treatments, key[1], strict=True)))}"
