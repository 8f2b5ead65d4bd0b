"""Heat map of the associations between attributes for the data report, drawn without a display."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from civae_core.figures.plots import new_figure, open_axes, plain, rendered

_READABLE = 16  # with more attributes the numbers in the cells would be too small to read


def imbalance_figure(names: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> Image.Image:
    """Heat map of P(row=1|column=1) − P(row=1|column=0) (the lab report's figure 1).

    Args:
        names: A attribute names.
        matrix: [A,A] differences, None where undefined (drawn grey).
    """
    values = np.array(matrix, dtype=np.float64)
    side = max(4.0, 0.27 * len(names) + 1.5) if len(names) > _READABLE else 0.55 * len(names) + 1.8
    figure = new_figure(round(100 * side), round(100 * (side + 0.9)))
    axes = figure.add_subplot()
    axes.set_facecolor("#d8d8d8")
    image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = np.arange(len(names))
    labels = [plain(name.replace("_", " ")) for name in names]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xlabel("given this attribute")
    axes.set_ylabel("this attribute")
    axes.tick_params(length=0)
    open_axes(axes)
    if len(names) <= _READABLE:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(
                    column, row, f"{100 * value:+.0f}", ha="center", va="center", fontsize=7, color=colour
                )
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=lambda value, _: f"{100 * value:+.0f}")
    bar.set_label("is more frequent by, in percentage points", fontsize=8)
    bar.outline.set_visible(False)
    return rendered(figure)
