"""Write a benchmark's results for people to read: a page and, with several overlaps, a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from civae_core.benchmark.figure import figure_bytes, overlap_figure
from civae_core.benchmark.report import render_benchmark
from civae_core.file_names import REPORT_PAGE
from civae_core.files import atomic_file, write_text


def write_results(results: Mapping[str, Any], out: Path) -> tuple[Path, Path | None]:
    """Write report.html and, with at least two overlaps, overlap.png and overlap.svg; return page and PNG.

    Args:
        results: the content of benchmark.json.

    Raises:
        CivaeError: the folder cannot be written.
    """
    figure = overlap_figure(results)
    picture, svg = None, None
    if figure is not None:
        picture, svg = out / "overlap.png", figure_bytes(figure, "svg").decode()
        with atomic_file(picture) as temporary:
            temporary.write_bytes(figure_bytes(figure, "png"))
        write_text(out / "overlap.svg", svg)
    page = out / REPORT_PAGE
    write_text(page, render_benchmark(results, svg))
    return page, picture
