"""A benchmark's results as tables on the terminal, one for each data set."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from civae_core.evaluation.table import evaluation_table


def benchmark_tables(results: Mapping[str, Any]) -> list[Table]:
    """The main measures of each data set that has numbers.

    Args:
        results: the content of benchmark.json.
    """
    return [
        evaluation_table({**data["asked"], "data": data["name"], "methods": results["summary"][data["name"]]})
        for data in results["data"]
        if results["summary"][data["name"]]
    ]
