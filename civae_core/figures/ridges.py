"""Posteriors of one subject under two doses of the treatment, with a ridge for each latent dimension."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from civae_core.figures.pictures import to_picture
from civae_core.figures.plots import (
    FAINT,
    HIGHER,
    LOWER,
    REPORT_WIDTH,
    new_figure,
    open_axes,
    plain,
    rendered,
)

_RIDGE = 0.86
"""Height of a ridge, as a share of the distance between rows."""
_ROW_PIXELS = 52
_IMAGE_PIXELS = 150
_PANEL_PIXELS = 440
_LABEL_LETTERS = 28
_CURVE_POINTS = 801


@dataclass(frozen=True)
class Arm:
    """One subject under one dose; distributions are Gaussians over the latent dimensions [Z]."""

    label: str
    """The dose, such as `Young = 0`."""
    origin: str
    """Where its image comes from, such as `the photograph`."""
    image_CHW: Tensor
    mean_Z: Tensor
    std_Z: Tensor
    """q(z|x,y,t) of this arm's own image (M3)."""
    prior_mean_Z: Tensor
    prior_std_Z: Tensor
    """p(z|x,t) (M1)."""


@dataclass(frozen=True)
class RidgePanel:
    """One subject under a lower and a higher dose."""

    title: str
    lower: Arm
    higher: Arm


def ridge_plot(panels: Sequence[RidgePanel], dimensions: Sequence[int], notes: Sequence[str]) -> Image.Image:
    """A panel for each subject: the arms' images, and below them a row of densities for each dimension.

    Values are shown in standard deviations of the prior at the lower dose, so that rows can be compared. All curves
    are drawn at the same height, although the density of N(mean, sd) is higher the narrower it is.

    Args:
        panels: at least one.
        dimensions: the latent dimensions to show, from top to bottom.
        notes: a short text for each dimension, shown below its name.
    """
    ridges_height = _ROW_PIXELS * (len(dimensions) + 1)
    width = max(REPORT_WIDTH if len(panels) > 1 else REPORT_WIDTH // 2, _PANEL_PIXELS * len(panels))
    figure = new_figure(_IMAGE_PIXELS + ridges_height + 90, width)
    grid = figure.add_gridspec(2, 2 * len(panels), height_ratios=[_IMAGE_PIXELS, ridges_height])
    first: Axes | None = None
    for p, panel in enumerate(panels):
        for a, (arm, colour) in enumerate(((panel.lower, LOWER), (panel.higher, HIGHER))):
            _draw_image(figure.add_subplot(grid[0, 2 * p + a]), arm, colour)
        axes = figure.add_subplot(grid[1, 2 * p : 2 * p + 2], sharex=first, sharey=first)
        first = first or axes
        _draw_ridges(axes, panel, dimensions)
        axes.set_title(plain(panel.title), fontsize=10)
        axes.set_xlabel("latent value (prior at the lower dose: mean 0, sd 1)", fontsize=9)
        rows = [len(dimensions) - 1 - row for row in range(len(dimensions))]
        names = [f"z{d}\n{note}" for d, note in zip(dimensions, notes, strict=True)]
        axes.set_yticks(rows, names, fontsize=8, va="bottom")
        axes.tick_params(axis="y", length=0, labelleft=p == 0)
    handles, labels = axes.get_legend_handles_labels()
    ncols = 4 if len(panels) > 1 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    return rendered(figure)


def _draw_image(axes: Axes, arm: Arm, colour: str) -> None:
    axes.imshow(np.asarray(to_picture(arm.image_CHW)), interpolation="lanczos")
    label = "\n".join(textwrap.wrap(arm.label, _LABEL_LETTERS))
    axes.set_title(plain(f"{label}\n{arm.origin}"), fontsize=9, color=colour)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2)


def _draw_ridges(axes: Axes, panel: RidgePanel, dimensions: Sequence[int]) -> None:
    centre_Z, unit_Z = panel.lower.prior_mean_Z, panel.lower.prior_std_Z
    curves = []
    for arm, dose, colour in ((panel.lower, "lower", LOWER), (panel.higher, "higher", HIGHER)):
        for mean_Z, std_Z, what in (
            (arm.prior_mean_Z, arm.prior_std_Z, "prior"),
            (arm.mean_Z, arm.std_Z, "posterior"),
        ):
            mean_D = ((mean_Z - centre_Z) / unit_Z)[list(dimensions)].tolist()
            std_D = (std_Z / unit_Z)[list(dimensions)].tolist()
            curves.append((mean_D, std_D, f"{what} at the {dose} dose", what == "prior", colour))
    for row in range(len(dimensions)):
        base = len(dimensions) - 1 - row
        axes.axhline(base, color="#d0d0d0", linewidth=0.8, zorder=0)
        for mean_D, std_D, label, is_prior, colour in curves:
            # Four standard deviations to each side contain the visible part of a curve, however narrow it is.
            x = mean_D[row] + std_D[row] * np.linspace(-4, 4, _CURVE_POINTS)
            y = base + _RIDGE * np.exp(-0.5 * ((x - mean_D[row]) / std_D[row]) ** 2)
            axes.plot(
                x,
                y,
                color=colour,
                linewidth=1.1 if is_prior else 1.5,
                linestyle=(0, (1, 2)) if is_prior else "-",
                label=label if row == 0 else None,
            )
            if not is_prior:
                axes.fill_between(x, base, y, color=colour, alpha=0.3, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_ylim(-0.1, len(dimensions))
    open_axes(axes, "bottom")
