"""A benchmark's results as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from civae_core.evaluation.table import method_tables


def benchmark_tables(results: Mapping[str, Any], width: int = 80) -> list[Table]:
    """Main measures, one per row, of each data set with results; methods that do not fit go into a further table.

    Args:
        results: the content of benchmark.json.
        width: number of characters in a line.
    """
    return [
        table
        for data in results["data"]
        if results["summary"][data["name"]]
        for table in method_tables(
            f"{data['name']}, {data['asked']['n']} {data['asked']['split']} images",
            results["summary"][data["name"]],
            width,
            intervals=False,
        )
    ]
