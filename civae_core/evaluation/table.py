"""The evaluation as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from civae_core.evaluation.measures import ARROWS, Measure, best_methods, measures_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.question import do_text
from civae_core.evaluation.values import ABSENT

MOST_DIGITS = len("[0.28, 0.30]")


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """One row per main measure, one column per method; absent numbers as a dash. The report has all measures.

    Some have their 95 % interval on a second line, so that four methods fit into 80 columns.

    Args:
        evaluation: the dictionary of `evaluate --json`; keys that are absent or unknown are passed over.
    """
    methods = evaluation.get("methods", {})
    names = ordered(methods)
    table = Table(
        title=_title(evaluation),
        title_justify="left",
        caption=Text(
            "↓ lower, ↑ higher, →0 nearer 0 is better · in brackets: 95 % interval over images"
            + (" · ± standard deviation over runs" if _has_runs(methods) else "")
        ),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("measure")
    for name in names:
        # Names may break, numbers may not.
        widest = max([*map(len, name.split()), MOST_DIGITS])
        table.add_column(Text(name), justify="right", min_width=widest)
    for measure in measures_present(methods):
        if measure.headline:
            cells = _cells(measure, methods, names)
            table.add_row(Text(f"{ARROWS[measure.better]} {measure.title}"), *cells)
    return table


def _cells(measure: Measure, methods: Mapping[str, Any], names: list[str]) -> list[Text]:
    best = best_methods(methods, measure)
    cells = []
    for name in names:
        value = measure.value(methods[name])
        text = Text(ABSENT if value is None else value.text(measure.decimals))
        if name in best:
            text.stylize("bold")
        if value is not None and value.note:
            text.append(f"\n{value.note}", style="dim")
        if value is not None and measure.interval:
            interval = value.interval_text(measure.decimals, between=", ")
            text.append(f"\n[{interval}]" if interval else "", style="dim")
        cells.append(text)
    return cells


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """One table for each intervention that was scored, the main one first."""
    return [
        evaluation_table({**evaluation, **other})
        for other in ({}, *evaluation.get("other_interventions", ()))
    ]


def _has_runs(methods: Mapping[str, Any]) -> bool:
    values = (m.value(entry) for m in measures_present(methods) for entry in methods.values())
    return any(value is not None and value.sd is not None for value in values)


def _title(evaluation: Mapping[str, Any]) -> Text:
    parts = [str(evaluation["data"])] if "data" in evaluation else []
    if "n" in evaluation:
        parts.append(f"{evaluation['n']} {evaluation.get('split', 'held-out')} images".replace("  ", " "))
    if "noise" in evaluation:
        parts.append(f"noise {evaluation['noise']:g}")
    if evaluation.get("other_interventions"):
        parts.append(f"do({do_text(evaluation['do'])})")
    return Text(", ".join(parts))
