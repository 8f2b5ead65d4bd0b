"""Reliability diagrams: how often an attribute is present when a predictor gives it, say, 70 %."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from civae_core.figures.plots import FAINT, LOWER, REPORT_WIDTH, new_figure, open_axes, plain, rendered

_COLUMNS = 3
_PANEL_PIXELS = 350
_COUNTS_AT = -0.13
FEWEST = 10
"""Number of images that a bin needs for its share to be meaningful."""
_SPARSE = "#b8b8b8"


@dataclass(frozen=True)
class Reliability:
    """Predictions of a binary attribute in K bins of equal width; empty bins are left out."""

    name: str
    centre_K: list[float]
    """Middle of each bin."""
    confidence_K: list[float]
    """Mean predicted probability in each bin."""
    frequency_K: list[float]
    """Share of images in each bin that have the attribute."""
    interval_K: list[tuple[float, float]]
    """95 % interval of that share."""
    count_K: list[int]
    error: float
    """Expected calibration error: mean |frequency − confidence| over images."""

    @property
    def count(self) -> int:
        return sum(self.count_K)


def reliability_plot(found: Sequence[Reliability]) -> Image.Image:
    """A panel for each attribute; dots on the dashed diagonal show a calibrated predictor.

    Bars are 95 % intervals. Larger dots mean more images; their number is printed below. Bins of fewer than `FEWEST`
    images are grey.
    """
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    # One or two panels stay square: the figure narrows instead of stretching them.
    width = REPORT_WIDTH if columns == _COLUMNS else (_PANEL_PIXELS + 20) * columns
    figure = new_figure(_PANEL_PIXELS * rows + 20, width)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, axes in enumerate(panels.flat):
        if number >= len(found):
            axes.set_visible(False)
            continue
        _draw(axes, found[number])
        if number % columns == 0:
            axes.set_ylabel("share that has the attribute", fontsize=9)
        if number + columns >= len(found):
            axes.set_xlabel("predicted probability", fontsize=9)
            axes.tick_params(labelbottom=True)
    return rendered(figure)


def _draw(axes: Axes, found: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--", zorder=1)
    x, y, count = np.array(found.confidence_K), np.array(found.frequency_K), np.array(found.count_K)
    low, high = np.array(found.interval_K).T
    colours = [LOWER if n >= FEWEST else _SPARSE for n in count]
    axes.vlines(x, low, high, color=colours, linewidth=1.2, zorder=2)
    area = 14 + 160 * count / found.count
    axes.scatter(x, y, s=area, color=colours, edgecolor="white", linewidth=0.6, zorder=3)
    for centre, n in zip(found.centre_K, found.count_K, strict=True):
        axes.text(centre, _COUNTS_AT, _short(n), fontsize=7, color=FAINT, ha="center", va="center")
    name = "\n".join(textwrap.wrap(found.name, 34))
    axes.set_title(plain(f"{name}\nECE {found.error:.3f}, {found.count:,} images"), fontsize=9)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(_COUNTS_AT - 0.05, 1.04)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_box_aspect(1)
    open_axes(axes, "left", "bottom")


def _short(count: int) -> str:
    """A count such as `12` or, if four digits would run into the neighbouring bin, `3.4k`."""
    return str(count) if count < 1000 else f"{count / 1000:.{1 if count < 9950 else 0}f}k"
