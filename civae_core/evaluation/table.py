"""The evaluation as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from civae_core.evaluation.columns import ABSENT, as_value, best_methods, columns_present, do_text, ordered

MOST_DIGITS = len("[0.28, 0.30]")


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """One row per measure, one column per method; absent numbers as a dash.

    The main measures have their 95 % interval on a second line, so that four methods fit into 80 columns.

    Args:
        evaluation: the dictionary of `evaluate --json`; keys that are absent or unknown are passed over.
    """
    methods = evaluation.get("methods", {})
    names = ordered(methods)
    table = Table(
        title=_title(evaluation),
        title_justify="left",
        caption=Text("↓ lower, ↑ higher is better · in brackets: 95 % interval over images"),
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
    for column in columns_present(methods):
        best = best_methods(methods, column)
        cells = []
        for name in names:
            value = as_value(methods[name].get(column.key))
            text = Text(ABSENT if value is None else value.text(column.decimals))
            if name in best:
                text.stylize("bold")
            if column.headline and value is not None:
                interval = value.interval_text(column.decimals, between=", ")
                text.append(f"\n[{interval}]" if interval else "", style="dim")
            cells.append(text)
        table.add_row(Text(f"{'↓' if column.better == 'lower' else '↑'} {column.title}"), *cells)
    return table


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """One table for each intervention that was scored, the main one first."""
    return [
        evaluation_table({**evaluation, **other})
        for other in ({}, *evaluation.get("other_interventions", ()))
    ]


def _title(evaluation: Mapping[str, Any]) -> Text:
    parts = [str(evaluation["data"])] if "data" in evaluation else []
    if "n" in evaluation:
        parts.append(f"{evaluation['n']} {evaluation.get('split', 'held-out')} images".replace("  ", " "))
    if "noise" in evaluation:
        parts.append(f"noise {evaluation['noise']:g}")
    if evaluation.get("other_interventions"):
        parts.append(f"do({do_text(evaluation['do'])})")
    return Text(", ".join(parts))
