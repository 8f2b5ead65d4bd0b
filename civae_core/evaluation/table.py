"""Scores of methods as tables for the terminal, with a row for each main measure and a column for each method."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from civae_core.assignments import do_text
from civae_core.evaluation.measures import ARROWS, Measure, best_methods, measures_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.values import ABSENT

MEASURE_WIDTH, GAP = 24, 2
LONGEST_NOTE = 14
"""Names up to this length stand below their numbers; longer ones, such as those of groups, are left to the report."""


def evaluation_tables(evaluation: Mapping[str, Any], width: int = 80) -> list[Table]:
    """The tables of each intervention that was scored, the main one first.

    Args:
        evaluation: the dictionary of `evaluate --json`; absent and unknown keys are ignored.
        width: characters in a line.
    """
    return [
        table
        for other in ({}, *evaluation.get("other_interventions", ()))
        for shown in [{**evaluation, **other}]
        for table in method_tables(_title(shown), shown.get("methods", {}), width)
    ]


def method_tables(
    title: str, methods: Mapping[str, Mapping[str, Any]], width: int = 80, *, intervals: bool = True
) -> Iterator[Table]:
    """Tables of the main measures, with a dash for absent numbers; methods that do not fit go into another table.

    If all methods fit into one table only without intervals and attributes, these are left out.

    Args:
        title: title of the first table.
        methods: entries by method, as in `evaluate --json`.
        width: characters in a line.
        intervals: whether to show them, and the attribute that a number belongs to, on further lines of a cell.
    """
    rows, pages = _laid_out(methods, width, intervals)
    left_out = False
    if intervals and len(pages) > 1:
        plain, fewer = _laid_out(methods, width, False)
        if left_out := len(fewer) == 1:
            rows, pages = plain, fewer
    texts = [cell.plain for _, cells in rows for cell in cells.values()]
    legend = "↓ lower, ↑ higher, →0 nearer 0 is better"
    legend += "\n± standard deviation over runs" if any("±" in text for text in texts) else ""
    legend += "\nin brackets: 95 % interval over images" if any("[" in text for text in texts) else ""
    legend += "\nintervals: in a wider window, and in evaluation.json" if left_out else ""
    columns = _widths(rows, methods)
    for number, names in enumerate(pages):
        table = Table(
            title=Text(title if number == 0 else f"{title}, continued"),
            title_justify="left",
            caption=Text(legend) if number == len(pages) - 1 else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.add_column("measure", min_width=MEASURE_WIDTH)
        for name in names:
            table.add_column(Text(name), justify="right", min_width=columns[name], no_wrap=True)
        for heading, cells in rows:
            table.add_row(heading, *(cells[name] for name in names))
        yield table


_Rows = list[tuple[Text, dict[str, Text]]]
"""Each measure's title, and its cells by method."""


def _laid_out(
    methods: Mapping[str, Mapping[str, Any]], width: int, intervals: bool
) -> tuple[_Rows, list[Sequence[str]]]:
    """The rows, and the methods on each page."""
    rows = [_row(measure, methods, intervals) for measure in measures_present(methods) if measure.headline]
    widest = max(_widths(rows, methods).values(), default=1)
    return rows, _pages(ordered(methods), max((width - MEASURE_WIDTH) // (widest + GAP), 1))


def _widths(rows: _Rows, methods: Mapping[str, Any]) -> dict[str, int]:
    """Width of each method's column in characters."""
    return {
        name: max(
            [len(name), *(cell_len(line) for _, cells in rows for line in cells[name].plain.split("\n"))]
        )
        for name in ordered(methods)
    }


def _row(
    measure: Measure, methods: Mapping[str, Mapping[str, Any]], intervals: bool
) -> tuple[Text, dict[str, Text]]:
    """A measure's title, and its cell by method."""
    best = best_methods(methods, measure)  # among all methods, on whichever page they are
    cells = {}
    for name, entry in methods.items():
        value = measure.value(entry)
        text = Text(
            ABSENT if value is None else value.text(measure.decimals), style="bold" if name in best else ""
        )
        if value is not None and intervals:
            if value.note and len(value.note) <= LONGEST_NOTE:
                text.append(f"\n{value.note}", style="not bold dim")
            interval = value.interval_text(measure.decimals, between=", ") if measure.interval else ""
            text.append(f"\n[{interval}]" if interval else "", style="not bold dim")
        cells[name] = text
    return Text(f"{ARROWS[measure.better]} {measure.title}"), cells


def _pages(names: Sequence[str], most: int) -> list[Sequence[str]]:
    """Split names into groups of nearly equal size, at most `most` in each; no names make one empty group."""
    count = max(-(-len(names) // most), 1)
    bounds = [round(len(names) * i / count) for i in range(count + 1)]
    return [names[start:stop] for start, stop in pairwise(bounds)]


def _title(evaluation: Mapping[str, Any]) -> str:
    parts = [str(evaluation["data"])] if "data" in evaluation else []
    if "n" in evaluation:
        parts.append(f"{evaluation['n']} {evaluation.get('split', 'held-out')} images".replace("  ", " "))
    if "noise" in evaluation:
        parts.append(f"noise {evaluation['noise']:g}")
    if evaluation.get("do"):
        parts.append(f"do({do_text(evaluation['do'])})")
    return ", ".join(parts)
