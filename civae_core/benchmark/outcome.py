"""Collect the results in a benchmark's folder into the content of benchmark.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from civae_core.attributes import AttributeRoles
from civae_core.benchmark.cells import Cell, Scoring, kept_evaluation, own_entry
from civae_core.benchmark.load import Benchmark
from civae_core.data import PreparedData
from civae_core.evaluation.evaluate import overlap_by_treatment
from civae_core.evaluation.measures import NOT_COMPETING
from civae_core.evaluation.seeds import summarise

SCHEMA = 1
ASKED = ("split", "n", "noise", "treatment", "covariates", "descendants", "do", "scorer")
"""Keys of an evaluation whose values are the same for all cells of one data set."""


def collect(
    benchmark: Benchmark,
    data: Sequence[tuple[str, PreparedData]],
    cells: Sequence[Cell],
    scoring: Scoring,
    errors: Mapping[str, str],
    balance: Mapping[str, Any],
) -> dict[str, Any]:
    """The results so far: each data set's overlap, each cell, and their summary over seeds.

    Cells without results are `failed`, with their error message from this call, or `pending`.

    Args:
        errors: these error messages, by cell name.
        balance: the `balance_of` each data set, by its name.
    """
    evaluations = {}
    by_name = dict(data)
    for cell in cells:
        found = None if cell.name in errors else kept_evaluation(cell, by_name[cell.data], scoring)
        if found is not None:
            evaluations[cell.name] = found
    return {
        "schema": SCHEMA,
        "methods": {
            name: {"changes": benchmark.changes[name], "config": config.model_dump(mode="json")}
            for name, config in benchmark.methods.items()
        },
        "seeds": list(benchmark.seeds),
        "limit": scoring.limit,
        "scorer": scoring.fingerprint,
        "data": [
            _describe(name, prepared, balance[name], [c for c in cells if c.data == name], evaluations)
            for name, prepared in data
        ],
        "cells": [_outcome(cell, evaluations.get(cell.name), errors.get(cell.name)) for cell in cells],
        "summary": {name: summary_of([c for c in cells if c.data == name], evaluations) for name, _ in data},
    }


def _outcome(cell: Cell, evaluation: Mapping[str, Any] | None, error: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"data": cell.data, "method": cell.method, "seed": cell.seed}
    if evaluation is not None:
        seconds = evaluation["benchmark"]["seconds"]
        return {**found, "status": "done", "seconds": seconds, "numbers": own_entry(evaluation)}
    if error is not None:
        return {**found, "status": "failed", "error": error}
    return {**found, "status": "pending"}


def summary_of(
    cells: Sequence[Cell], evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each method's summary over the seeds of one data set; copying the input and the truth are listed once."""
    scored = [cell for cell in cells if cell.name in evaluations]
    if not scored:
        return {}
    shared = evaluations[scored[0].name]["methods"]
    summary = {name: shared[name] for name in NOT_COMPETING if name in shared}
    for method in dict.fromkeys(cell.method for cell in scored):
        runs = [cell for cell in scored if cell.method == method]
        summary[method] = summarise([own_entry(evaluations[cell.name]) for cell in runs])
    return summary


def balance_of(data: PreparedData, roles: AttributeRoles) -> dict[str, Any]:
    """How well the arms of a data set overlap, for each treatment: the overlap report without its lists."""
    return {
        treatment: {
            key: report[key]
            for key in ("level", "verdict", "auc", "r_squared", "share_extreme", "effective_sample_share")
            if report.get(key) is not None
        }
        for treatment, report in overlap_by_treatment(data, roles).items()
    }


def _describe(
    name: str,
    data: PreparedData,
    balance: Mapping[str, Any],
    cells: Sequence[Cell],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """One data set: what it is, how well its arms overlap, and which question was evaluated on it."""
    asked = next((evaluations[cell.name] for cell in cells if cell.name in evaluations), {})
    overlap = data.manifest.source.get("overlap")
    return {
        "name": name,
        "path": str(data.path),
        "fingerprint": data.fingerprint,
        **({} if overlap is None else {"overlap": overlap}),
        "balance": balance,
        "asked": {key: asked[key] for key in ASKED if key in asked},
    }
