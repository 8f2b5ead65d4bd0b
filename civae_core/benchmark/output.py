"""Where a benchmark's results are written for people: a page and, over overlaps, a figure."""

from pathlib import Path
from typing import Any


def write_results(numbers: dict[str, Any], out: Path) -> tuple[Path, Path | None]:
    return out / "report.html", None
