"""A benchmark's results as tables on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from civae_core.evaluation.measures import ARROWS, best_methods, measures_present
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.values import ABSENT

NAMES_WIDTH, NUMBER_WIDTH = 24, len("0.00282 ± 0.00002")


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
    pages = _pages(ordered(methods), max((width - NAMES_WIDTH) // (NUMBER_WIDTH + 1), 1))
    for number, names in enumerate(pages):
        last = number == len(pages) - 1
        table = Table(
            title=title if number == 0 else f"{title}, continued",
            title_justify="left",
            caption=Text("↓ lower, ↑ higher, →0 nearer 0 is better · ± standard deviation over runs")
            if last
            else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.add_column("measure", min_width=NAMES_WIDTH - 1)
        for name in names:
            table.add_column(Text(name), justify="right", min_width=NUMBER_WIDTH)
        for measure in measures_present(methods):
            if not measure.headline:
                continue
            best = best_methods(methods, measure)  # of all, on whichever page they stand
            cells = []
            for name in names:
                value = measure.value(methods[name])
                text = ABSENT if value is None else value.text(measure.decimals)
                cells.append(Text(text, style="bold" if name in best else ""))
            table.add_row(Text(f"{ARROWS[measure.better]} {measure.title}"), *cells)
        yield table


def _pages(names: Sequence[str], most: int) -> list[Sequence[str]]:
    """Names in groups of nearly one size, at most so many in each."""
    count = -(-len(names) // most)
    size = -(-len(names) // count)
    return [names[start : start + size] for start in range(0, len(names), size)]
