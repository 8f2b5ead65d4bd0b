"""Reliability diagrams: how often an attribute is there when a predictor says it is with 70 %."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from civae_core.figures.plots import FAINT, LOWER, REPORT_WIDTH, new_figure, open_axes, plain, rendered

_COLUMNS = 3
_PANEL_PIXELS = 330


@dataclass(frozen=True)
class Reliability:
    """A binary attribute's predictions in K bins of equal width; empty bins are left out."""

    name: str
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
    """A panel for each attribute; dots on the diagonal are a calibrated predictor, larger dots more images."""
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    # One or two panels stay square: the figure narrows instead of stretching them.
    width = REPORT_WIDTH if columns == _COLUMNS else (_PANEL_PIXELS + 20) * columns
    figure = new_figure(_PANEL_PIXELS * rows, width)
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
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--", label="ideal", zorder=1)
    x, y = np.array(found.confidence_K), np.array(found.frequency_K)
    low, high = np.array(found.interval_K).T
    axes.vlines(x, low, high, color=LOWER, linewidth=1.2, zorder=2)
    area = 12 + 160 * np.array(found.count_K) / found.count
    label = f"error (ECE) {found.error:.3f}\nof {found.count:,} images"
    axes.scatter(x, y, s=area, color=LOWER, edgecolor="white", linewidth=0.6, label=label, zorder=3)
    for confidence, frequency, count in zip(x, y, found.count_K, strict=True):
        beside = (9, -3) if confidence < 0.75 else (-9, -3)
        axes.annotate(
            f"{count:,}",
            (confidence, frequency),
            beside,
            textcoords="offset points",
            ha="left" if confidence < 0.75 else "right",
            fontsize=7,
            color=FAINT,
        )
    axes.set_title(plain("\n".join(textwrap.wrap(found.name, 34))), fontsize=10)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_box_aspect(1)
    legend = axes.legend(loc="upper left", frameon=False, fontsize=8)
    legend.legend_handles[1].set_sizes([30])  # type: ignore[union-attr]
    open_axes(axes, "left", "bottom")
