"""A benchmark's results as tables on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from civae_core.evaluation.measures import ARROWS, Measure, best_methods, measures_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.values import ABSENT

NAMES_WIDTH, GAP = 24, 2


def benchmark_tables(results: Mapping[str, Any], width: int = 80) -> list[Table]:
    """The main measures, a row each, of each data set that has numbers; methods that do not fit go to another table.

    Args:
        results: the content of benchmark.json.
        width: characters in a line.
    """
    return [
        table
        for data in results["data"]
        if results["summary"][data["name"]]
        for table in _tables_of(data, results["summary"][data["name"]], width)
    ]


def _tables_of(data: Mapping[str, Any], methods: Mapping[str, Any], width: int) -> Iterator[Table]:
    title = f"{data['name']}, {data['asked']['n']} {data['asked']['split']} images"
    rows = [_row(measure, methods) for measure in measures_present(methods) if measure.headline]
    columns = {
        name: max([len(name), *(cell_len(cells[name].plain) for _, cells in rows)])
        for name in ordered(methods)
    }
    pages = _pages(list(columns), max((width - NAMES_WIDTH) // (max(columns.values()) + GAP), 1))
    spread = any("±" in cell.plain for _, cells in rows for cell in cells.values())
    legend = "↓ lower, ↑ higher, →0 nearer 0 is better" + (" · ± sd over runs" if spread else "")
    for number, names in enumerate(pages):
        table = Table(
            title=title if number == 0 else f"{title}, continued",
            title_justify="left",
            caption=Text(legend) if number == len(pages) - 1 else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.add_column("measure", min_width=NAMES_WIDTH)
        for name in names:
            table.add_column(Text(name), justify="right", min_width=columns[name], no_wrap=True)
        for heading, cells in rows:
            table.add_row(heading, *(cells[name] for name in names))
        yield table


def _row(measure: Measure, methods: Mapping[str, Any]) -> tuple[Text, dict[str, Text]]:
    """A measure's title, and its number by method."""
    best = best_methods(methods, measure)  # of all, on whichever page they stand
    cells = {}
    for name, entry in methods.items():
        value = measure.value(entry)
        text = ABSENT if value is None else value.text(measure.decimals)
        cells[name] = Text(text, style="bold" if name in best else "")
    return Text(f"{ARROWS[measure.better]} {measure.title}"), cells


def _pages(names: Sequence[str], most: int) -> list[Sequence[str]]:
    """Names in groups of nearly one size, at most so many in each."""
    count = -(-len(names) // most)
    bounds = [round(len(names) * i / count) for i in range(count + 1)]
    return [names[start:stop] for start, stop in pairwise(bounds)]
