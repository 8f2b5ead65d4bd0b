"""Histograms of the propensity by arm: where only one arm has bars, there is nobody to compare with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from civae_core.figures.plots import FAINT, HIGHER, LOWER, new_figure, open_axes, plain, rendered


def propensity_histogram(
    overlap: Mapping[str, Any], extreme: tuple[float, float] | None = None
) -> Image.Image:
    """Histograms of the propensity, one arm above the axis and the other below it.

    Args:
        overlap: an `OverlapReport` of a binary treatment, as a dictionary; its `histogram` counts images per bin.
        extreme: propensities below the first and above the second value are shaded; subjects there are nearly
            all in one arm.
    """
    edges = np.array(overlap["histogram_edges"])
    centres, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    figure = new_figure(height=340)
    axes = figure.add_subplot()
    name = plain(overlap["treatment"])
    for arm, sign, colour in (("1", 1, HIGHER), ("0", -1, LOWER)):
        counts = np.array(overlap["histogram"][arm])
        shares = sign * counts / max(counts.sum(), 1)
        axes.bar(
            centres, shares, width * 0.94, color=colour, label=f"{name} = {arm} ({counts.sum():,} images)"
        )
    axes.axhline(0, color="black", linewidth=0.8)
    if extreme is not None:
        for k, (start, end) in enumerate(((0.0, extreme[0]), (extreme[1], 1.0))):
            label = f"below {extreme[0]:g} or above {extreme[1]:g}: nearly all in one group"
            axes.axvspan(start, end, color=FAINT, alpha=0.2, linewidth=0, label=None if k else label)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"probability of {name} = 1, judged by the covariates alone")
    axes.set_ylabel("share of the group")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.0f} %")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda k: not labels[k].startswith(name))
    figure.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        frameon=False,
        loc="outside upper center",
        ncols=3,
        fontsize=9,
    )
    open_axes(axes, "left", "bottom")
    return rendered(figure)
