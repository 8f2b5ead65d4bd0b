"""The report on prepared data: its contents, how attributes are associated, and whether it can answer a question.

report.json holds the facts; report.html presents them to people, in one file without external references.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from civae_core.balance.diagnostics import EXTREME, overlap_report
from civae_core.data.labelled import evenly_spread
from civae_core.data.prepared import PreparedData
from civae_core.data.report_figures import imbalance_figure
from civae_core.data.sources.base import Question
from civae_core.data.splits import SPLITS
from civae_core.data.tables import Table
from civae_core.figures.grids import image_grid
from civae_core.figures.overlap import propensity_histogram
from civae_core.figures.pages import render_page
from civae_core.figures.pictures import inlined
from civae_core.file_names import MOST_REPORT_BYTES, REPORT_JSON, REPORT_PAGE
from civae_core.files import sha256_of, write_json, write_text
from civae_core.reading import read_json

_TEMPLATE = Path(__file__).with_name("report.html.j2")
ROWS_AT_ONCE = 2**12
"""Table rows counted at a time: as numbers, a whole large table would take more memory than everything else."""
_EXAMPLE_COLUMNS, _EXAMPLE_ROWS = 8, 3
_TRUTH_ROWS = 4
_STRONGEST = 8
MOST_IN_HEAT_MAP = 80
"""Attributes whose associations are stored and drawn; with more, a page could be neither read nor even drawn."""

_log = logging.getLogger(__name__)


def write_report(
    data: PreparedData, rejected: Sequence[tuple[str, str]], table: Table, question: Question
) -> None:
    """Write report.html and then report.json into the data's folder.

    Args:
        data: the packed images.
        rejected: files that could not be used, each with the reason.
        table: the source's table, of which the notes and the columns left out are told.
        question: the question whose overlap is diagnosed; without a treatment, that section explains how to get it.
    """
    facts = gather(data, rejected, table, question)
    page = data.path / REPORT_PAGE
    write_text(page, _render(data, facts))
    # Last, and with the page's checksum: a process that is killed in between leaves two that do not belong together.
    write_json(data.path / REPORT_JSON, facts | {"page_sha256": sha256_of(page)})


def read_rejected(folder: Path) -> list[tuple[str, str]]:
    """Rejected files listed by an earlier report in this folder; empty if it is missing or damaged."""
    try:
        facts = read_json(folder / REPORT_JSON, MOST_REPORT_BYTES)
        return [(entry["file"], entry["reason"]) for entry in facts["rejected"]]
    except (OSError, ValueError, KeyError, TypeError):
        _log.warning("%s is missing or damaged; the new report lists no rejected files", folder / REPORT_JSON)
        return []


def read_question(folder: Path) -> Question | None:
    """The question answered by an earlier report in this folder; None if it is missing, damaged or half written."""
    try:
        facts = read_json(folder / REPORT_JSON, MOST_REPORT_BYTES)
        if facts["page_sha256"] != sha256_of(folder / REPORT_PAGE):
            return None
        asked = facts["question"]
        return Question(tuple(asked["treatment"]), tuple(asked["covariates"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def gather(
    data: PreparedData, rejected: Sequence[tuple[str, str]], table: Table, question: Question
) -> dict[str, Any]:
    """The report's facts as plain values.

    Imbalance and overlap are those of the training split, which is what a model learns from (of all images if that
    split is empty).
    """
    train = data.rows("train")
    rows = train if len(train) else torch.arange(len(data))
    return {
        "name": data.name,
        "source": data.manifest.source,
        "fingerprint": data.fingerprint,
        "images": len(data),
        "splits": dict(data.manifest.splits),
        "preprocessing": data.preprocessing,
        "notes": list(table.notes),
        "left_out": dict(table.left_out),
        "rejected": [{"file": file, "reason": reason} for file, reason in rejected],
        "attributes": _attribute_facts(data),
        "labels": label_facts(data, question),
        "imbalance": _imbalance_facts(data, rows, question),
        "question": {"treatment": list(question.treatment), "covariates": list(question.covariates)},
        "overlap": [_overlap(data, rows, name, question) for name in question.treatment],
    }


def _imbalance_facts(data: PreparedData, rows: torch.Tensor, question: Question) -> dict[str, Any]:
    """Imbalance of the binary attributes: names, matrix, and how many were left out because there are too many."""
    binary = [number for number, attribute in enumerate(data.attributes) if attribute.kind == "binary"]
    names = [data.attributes[number].name for number in binary]
    matrix_AA = imbalance(data.table_NA, rows, binary)
    asked = {*question.treatment, *question.covariates}
    shown = most_associated(matrix_AA, [name in asked for name in names])
    matrix = matrix_AA[shown][:, shown].tolist()
    return {
        "names": [names[number] for number in shown],
        "matrix": [[None if value != value else round(value, 4) for value in row] for row in matrix],
        "not_shown": len(names) - len(shown),
    }


def most_associated(
    matrix_AA: torch.Tensor, wanted: Sequence[bool], most: int = MOST_IN_HEAT_MAP
) -> list[int]:
    """At most `most` of the attributes, in their order: those wanted, then those in the largest differences.

    Args:
        matrix_AA: imbalance of A attributes, float64, NaN where undefined.
        wanted: A values, true for an attribute of the question.
    """
    size_AA = matrix_AA.abs().nan_to_num(0)
    largest_A = torch.maximum(size_AA.amax(0), size_AA.amax(1)).tolist() if len(size_AA) else []
    ranked = sorted(range(len(largest_A)), key=lambda a: (not wanted[a], -largest_A[a]))
    return sorted(ranked[:most])


def imbalance(
    table_NA: torch.Tensor, rows: torch.Tensor | None = None, columns: Sequence[int] | None = None
) -> torch.Tensor:
    """How much more frequent attribute a is where b holds: P(a=1|b=1) − P(a=1|b=0), float64 [A,A] (row a, column b).

    Args:
        table_NA: attributes, NaN where missing; each pair uses only the rows where both are known.
        rows: the table rows to count; by default all.
        columns: the A columns to compare, which are binary; by default all.

    Returns:
        Values in [−1, 1]; NaN on the diagonal and where b has only one value.
    """
    compared = (
        torch.arange(table_NA.shape[1]) if columns is None else torch.tensor(columns, dtype=torch.int64)
    )
    ones_AA, known_1A, known_AA = torch.zeros(3, len(compared), len(compared), dtype=torch.float64)
    counted = torch.arange(len(table_NA)) if rows is None else rows
    for part in counted.split(ROWS_AT_ONCE):  # counts are exact in float32, however the rows are split
        part_NA = table_NA[part[:, None], compared]
        known, one = (~part_NA.isnan()).float(), (part_NA == 1).float()
        ones_AA += one.T @ one
        known_1A += known.T @ one
        known_AA += known.T @ known
    # [a,b] counts rows where a=1 and b=0, and rows where a is known and b=0.
    zeros_AA, known_0A = known_1A.T - ones_AA, known_AA - known_1A
    given_one, given_zero = ones_AA / known_1A, zeros_AA / known_0A
    return (given_one - given_zero).fill_diagonal_(torch.nan)


def _attribute_facts(data: PreparedData) -> list[dict[str, Any]]:
    rows = {split: data.rows(split) for split in SPLITS}
    return [
        {
            "name": attribute.name,
            "kind": attribute.kind,
            "splits": {
                split: _values_facts(data.table_NA[rows[split], column], attribute.kind) for split in SPLITS
            },
        }
        for column, attribute in enumerate(data.attributes)
    ]


def _values_facts(values_N: torch.Tensor, kind: str) -> dict[str, Any]:
    known = values_N[~values_N.isnan()].double()
    facts: dict[str, Any] = {"known": len(known), "missing": len(values_N) - len(known)}
    if kind == "binary":
        facts["ones"] = int(known.sum())
    if len(known):
        facts |= {"mean": float(known.mean()), "low": float(known.min()), "high": float(known.max())}
    return facts


def label_facts(data: PreparedData, question: Question) -> dict[str, Any]:
    """Number of images per split with all, some or none of the question's labels (or of all labels, without one)."""
    names = [*question.treatment, *question.covariates] or [attribute.name for attribute in data.attributes]
    known_NA = ~data.columns(names).isnan()
    splits = {}
    for split in SPLITS:
        known = known_NA[data.rows(split)]
        every, any_ = int(known.all(dim=1).sum()), int(known.any(dim=1).sum())
        splits[split] = {"all": every, "some": any_ - every, "none": len(known) - any_}
    return {"of": names, "splits": splits}


def _overlap(data: PreparedData, rows: torch.Tensor, treatment: str, question: Question) -> dict[str, Any]:
    names = [attribute.name for attribute in data.attributes]
    # do(treatment) leaves the other treatments unchanged, so they are covariates of this one.
    others = [name for name in question.treatment if name != treatment]
    columns = [names.index(name) for name in (*question.covariates, *others)]
    covariates = [data.attributes[column] for column in columns]
    report = overlap_report(
        data.table_NA[rows[:, None], torch.tensor(columns, dtype=torch.int64)].double(),
        data.column(treatment)[rows],
        [attribute.name for attribute in covariates],
        treatment,
        data.attributes[names.index(treatment)].kind,
        [attribute.kind == "binary" for attribute in covariates],
    )
    return report.to_dict()


def strongest(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The most strongly associated pairs of attributes, each once: names and the difference in frequency."""
    names, matrix = facts["imbalance"]["names"], facts["imbalance"]["matrix"]
    pairs = [
        {"of": names[a], "given": names[b], "difference": matrix[a][b]}
        for a in range(len(names))
        for b in range(len(names))
        if a != b
        and matrix[a][b] is not None
        # Of the two directions, keep the one with the larger difference.
        and (matrix[b][a] is None or (abs(matrix[a][b]), b) > (abs(matrix[b][a]), a))
    ]
    return sorted(pairs, key=lambda pair: -abs(pair["difference"]))[:_STRONGEST]


def _render(data: PreparedData, facts: dict[str, Any]) -> str:
    matrix = facts["imbalance"]
    return render_page(
        _TEMPLATE,
        facts=facts,
        splits=SPLITS,
        strongest=strongest(facts),
        examples=inlined(_examples(data)),
        truths=inlined(_truths(data)) if data.truth else None,
        heat_map=inlined(imbalance_figure(matrix["names"], matrix["matrix"]))
        if len(matrix["names"]) > 1
        else None,
        histograms={
            entry["treatment"]: inlined(propensity_histogram(entry, EXTREME))
            for entry in facts["overlap"]
            if entry["histogram"]
        },
    )


def _examples(data: PreparedData) -> Image.Image:
    """A sheet of images evenly spread over the training split (over all images if it is empty)."""
    rows = data.rows("train") if len(data.rows("train")) else torch.arange(len(data))
    columns = min(_EXAMPLE_COLUMNS, len(rows))
    count = min(_EXAMPLE_ROWS, len(rows) // columns) * columns
    picked = rows[evenly_spread(len(rows), count)]
    images = data.images(picked)
    return image_grid([("", images[first::columns]) for first in range(columns)])


def _truths(data: PreparedData) -> Image.Image:
    """Held-out subjects beside their true counterfactuals, one subject per row."""
    first = data.truth[0]
    indices = torch.arange(min(_TRUTH_ROWS, len(first)))
    columns = [("as they are", data.images(first.rows[indices]))]
    columns += [(truth.name, truth.images(indices)) for truth in data.truth if truth.rows.equal(first.rows)]
    return image_grid(columns)
