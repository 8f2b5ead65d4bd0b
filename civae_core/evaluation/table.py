"""The evaluation as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from civae_core.evaluation.columns import ABSENT, as_value, best_methods, columns_present, ordered


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """One row per measure, one column per method, 95 % intervals in brackets; absent numbers as a dash.

    Args:
        evaluation: the dictionary of `evaluate --json`; keys that are absent or unknown are passed over.
    """
    methods = evaluation.get("methods", {})
    names = ordered(methods)
    table = Table(title=_title(evaluation), title_justify="left", caption_justify="left")
    table.caption = "[95 % interval over images] · ↓ lower is better, ↑ higher is better"
    table.add_column("measure")
    for name in names:
        table.add_column(Text(name), justify="right")
    for column in columns_present(methods):
        best = best_methods(methods, column)
        cells = []
        for name in names:
            value = as_value(methods[name].get(column.key))
            text = Text(ABSENT if value is None else value.text(column.decimals))
            if name in best:
                text.stylize("bold")
            if value is not None and (interval := value.interval_text(column.decimals)):
                text.append(f" [{interval}]", style="dim")
            cells.append(text)
        table.add_row(Text(f"{column.title} {'↓' if column.better == 'lower' else '↑'}"), *cells)
    return table


def _title(evaluation: Mapping[str, Any]) -> Text:
    parts = [str(evaluation["data"])] if "data" in evaluation else []
    if "n" in evaluation:
        parts.append(f"{evaluation['n']} {evaluation.get('split', 'held-out')} images".replace("  ", " "))
    if "noise" in evaluation:
        parts.append(f"noise {evaluation['noise']:g}")
    return Text(", ".join(parts))
