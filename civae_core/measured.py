"""Reading of metrics.jsonl by code that did not write it: damaged lines are ignored."""

from pathlib import Path
from typing import Any

from civae_core.reading import parse_json, read_at_most

MOST_BYTES = 2**28


def lines_of(metrics: Path) -> list[str]:
    """All lines of the file, oldest first; empty if there is no such file.

    Raises:
        OSError: the file cannot be read, or is longer than `MOST_BYTES`.
    """
    if not metrics.is_file():
        return []
    return read_at_most(metrics, MOST_BYTES).decode("utf-8", errors="replace").splitlines()


def told_by(line: str) -> dict[str, Any]:
    """The values in a line; empty if it is not a JSON object, as when a kill cut it short."""
    try:
        values = parse_json(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
