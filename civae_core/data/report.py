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
from civae_core.figures.grids import image_grid
from civae_core.figures.overlap import propensity_histogram
from civae_core.figures.pages import render_page
from civae_core.figures.pictures import inlined
from civae_core.files import write_json, write_text
from civae_core.reading import read_json

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
MOST_REPORT_BYTES = 2**28
"""Size limit of report.json, which may list a million rejected files."""
_TEMPLATE = Path(__file__).with_name("report.html.j2")
ROWS_AT_ONCE = 2**12
"""Table rows counted at a time: as float64, a whole large table would take more memory than everything else."""
_EXAMPLE_COLUMNS, _EXAMPLE_ROWS = 8, 3
_TRUTH_ROWS = 4
_STRONGEST = 8

_log = logging.getLogger(__name__)


def write_report(
    data: PreparedData, rejected: Sequence[tuple[str, str]], notes: Sequence[str], question: Question
) -> None:
    """Write report.json and report.html into the data's folder.

    Args:
        data: the packed images.
        rejected: files that could not be used, each with the reason.
        notes: sentences about the table.
        question: the question whose overlap is diagnosed; without a treatment, that section explains how to get it.
    """
    facts = gather(data, rejected, notes, question)
    write_json(data.path / REPORT_JSON, facts)
    write_text(data.path / REPORT_HTML, _render(data, facts))


def read_rejected(folder: Path) -> list[tuple[str, str]]:
    """Rejected files listed by an earlier report in this folder; empty if it is missing or damaged."""
    try:
        facts = read_json(folder / REPORT_JSON, MOST_REPORT_BYTES)
        return [(entry["file"], entry["reason"]) for entry in facts["rejected"]]
    except (OSError, ValueError, KeyError, TypeError):
        _log.warning("%s is missing or damaged; the new report lists no rejected files", folder / REPORT_JSON)
        return []


def read_question(folder: Path) -> Question | None:
    """The question answered by an earlier report in this folder; None if it is missing or damaged."""
    try:
        asked = read_json(folder / REPORT_JSON, MOST_REPORT_BYTES)["question"]
        return Question(tuple(asked["treatment"]), tuple(asked["covariates"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def gather(
    data: PreparedData, rejected: Sequence[tuple[str, str]], notes: Sequence[str], question: Question
) -> dict[str, Any]:
    """The report's facts as plain values.

    Imbalance and overlap are those of the training split, which is what a model learns from (of all images if that
    split is empty).
    """
    train = data.rows("train")
    rows = train if len(train) else torch.arange(len(data))
    binary = [number for number, attribute in enumerate(data.attributes) if attribute.kind == "binary"]
    matrix = imbalance(data.table_NA, rows)[binary][:, binary]
    names = [data.attributes[number].name for number in binary]
    return {
        "name": data.name,
        "source": data.manifest.source,
        "fingerprint": data.fingerprint,
        "images": len(data),
        "splits": dict(data.manifest.splits),
        "preprocessing": data.preprocessing,
        "notes": list(notes),
        "rejected": [{"file": file, "reason": reason} for file, reason in rejected],
        "attributes": [_attribute_facts(data, number) for number in range(len(data.attributes))],
        "labels": label_facts(data, question),
        "imbalance": {
            "names": names,
            "matrix": [
                [None if value != value else round(value, 4) for value in row] for row in matrix.tolist()
            ],
        },
        "question": {"treatment": list(question.treatment), "covariates": list(question.covariates)},
        "overlap": [_overlap(data, rows, name, question) for name in question.treatment],
    }


def imbalance(table_NA: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """How much more frequent attribute a is where b holds: P(a=1|b=1) − P(a=1|b=0), float64 [A,A] (row a, column b).

    Args:
        table_NA: binary attributes, NaN where missing; each pair uses only the rows where both are known.
        rows: the table rows to count; by default all.

    Returns:
        Values in [−1, 1]; NaN on the diagonal and where b has only one value.
    """
    width = table_NA.shape[1]
    ones_AA, known_1A, zeros_AA, known_0A = torch.zeros(4, width, width, dtype=torch.float64)
    counted = torch.arange(len(table_NA)) if rows is None else rows
    for part in counted.split(ROWS_AT_ONCE):  # counts are exact, however the rows are split
        part_NA = table_NA[part]
        known, one, zero = (~part_NA.isnan()).double(), (part_NA == 1).double(), (part_NA == 0).double()
        ones_AA += one.T @ one
        known_1A += known.T @ one
        zeros_AA += one.T @ zero
        known_0A += known.T @ zero
    given_one, given_zero = ones_AA / known_1A, zeros_AA / known_0A
    return (given_one - given_zero).fill_diagonal_(torch.nan)


def _attribute_facts(data: PreparedData, column: int) -> dict[str, Any]:
    attribute = data.attributes[column]
    facts: dict[str, Any] = {"name": attribute.name, "kind": attribute.kind, "splits": {}}
    for split in SPLITS:
        values = data.table_NA[data.rows(split), column]
        known = values[~values.isnan()].double()
        entry: dict[str, Any] = {"known": len(known), "missing": len(values) - len(known)}
        if attribute.kind == "binary":
            entry["ones"] = int(known.sum())
        if len(known):
            entry["mean"] = float(known.mean())
            entry["low"], entry["high"] = float(known.min()), float(known.max())
        facts["splits"][split] = entry
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
