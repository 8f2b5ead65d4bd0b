"""metrics.jsonl, read by whoever did not write it: damaged lines are passed over."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from civae_core.reading import parse_json, read_at_most

MOST_BYTES = 2**28


def lines_of(metrics: Path) -> list[str]:
    """All lines of the file, the oldest first; none where it is not there.

    Raises:
        OSError: it cannot be read, is longer than `MOST_BYTES`, or is no regular file.
    """
    if not metrics.exists():
        return []
    return read_at_most(metrics, MOST_BYTES).decode("utf-8", errors="replace").splitlines()


def parsed(lines: list[str], *, newest_first: bool = False) -> Iterator[dict[str, Any]]:
    """What lines tell; one that is no object, as when a kill tore it, is passed over."""
    for line in reversed(lines) if newest_first else lines:
        try:
            values = parse_json(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values
