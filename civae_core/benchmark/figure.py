"""Plot of error against overlap, with one line per method; needs no display."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from civae_core.evaluation.measures import NOT_COMPETING
from civae_core.evaluation.naming import ordered
from civae_core.evaluation.values import Value, as_value
from civae_core.figures.plots import FAINT, PALETTE, new_figure, open_axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
OURS = "ours"
_DPI = 120
"""Resolution of the PNG, which is shown on its own and so is larger than in a report's column."""
COPY, COPY_LABEL = "copy", "returning the input unchanged"


@dataclass(frozen=True)
class Panel:
    """One panel of the figure: a measure plotted over the overlaps."""

    key: str
    title: str
    ideal: str
    magnitude: bool = False
    """Whether the sign has no meaning, so that the absolute value is plotted."""


PANELS = (
    Panel("relative_effect_error", "relative effect error", "0 is a perfect counterfactual"),
    Panel("worst_leak", "worst leak, in sd of the score", "0 is ideal", magnitude=True),
)


def overlap_figure(results: Mapping[str, Any]) -> Figure | None:
    """The figure, with one panel per available measure; None unless at least two overlaps have results.

    Error bars show the standard deviation over runs, bands the 95 % interval over images.

    Args:
        results: the content of benchmark.json.
    """
    data = [d for d in results["data"] if "overlap" in d and results["summary"][d["name"]]]
    panels = [panel for panel in PANELS if _lines(panel, data, results["summary"]).keys() - {COPY}]
    if len(data) < 2 or not panels:
        return None
    figure = new_figure(460, 640 * len(panels) + 40)
    methods = [m for m in ordered(_union(results["summary"])) if m not in NOT_COMPETING]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel, data, results["summary"], methods)
    barred = any(
        value.sd is not None
        for panel in panels
        for line in _lines(panel, data, results["summary"]).values()
        for _, value in line
    )
    figure.text(
        0.01,
        -0.01,
        ("Bars: ± standard deviation over trainings. " if barred else "One training each. ")
        + "Bands: 95 % interval over test images.\n"
        "In brackets: subjects whose treatment is all but certain, with a propensity outside [0.05, 0.95].",
        fontsize=7.5,
        color="#444444",
        va="top",
    )
    return figure


def figure_bytes(figure: Figure, form: str) -> bytes:
    """The figure as `png` or `svg`; the same results give the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "civae"}):
        figure.savefig(buffer, format=form, dpi=_DPI, bbox_inches="tight", pad_inches=0.12, metadata=metadata)
    return buffer.getvalue()


def _union(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(method for methods in summary.values() for method in methods))


def _lines(
    panel: Panel, data: Sequence[Mapping[str, Any]], summary: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[tuple[float, Value]]]:
    """Points (overlap, value) by method, including copying the input, in order of decreasing overlap."""
    lines: dict[str, list[tuple[float, Value]]] = {}
    for entry in sorted(data, key=lambda d: -d["overlap"]):
        for method, scores in summary[entry["name"]].items():
            value = as_value(scores.get(panel.key))
            if value is not None and method != "truth":
                lines.setdefault(method, []).append((entry["overlap"], value))
    return lines


def _draw(
    axes: Axes,
    panel: Panel,
    data: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
) -> None:
    lines = _lines(panel, data, summary)
    overlaps = sorted({entry["overlap"] for entry in data}, reverse=True)
    span = overlaps[0] - overlaps[-1]
    copied = [(overlap, _sized(panel, value.mean)) for overlap, value in lines.get(COPY, [])]
    top = max([0.0, *(height for _, height in copied)])
    ends: list[tuple[float, str, str]] = []
    for number, method in enumerate(methods):
        if method not in lines:
            continue
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        shift = (number - (len(methods) - 1) / 2) * 0.009 * span  # so that equal lines remain visible
        x = [overlap + shift for overlap, _ in lines[method]]
        mean = [_sized(panel, v.mean) for _, v in lines[method]]
        one_run = all(v.sd is None for _, v in lines[method])
        width = 2.4 if method == OURS else 1.4
        axes.errorbar(
            x,
            mean,
            yerr=None if one_run else [v.sd or 0.0 for _, v in lines[method]],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=width,
            capsize=3,
            zorder=3 if method == OURS else 2,
        )
        bounds = [found for _, v in lines[method] if (found := _bounds(panel, v)) is not None]
        if len(bounds) == len(x):
            axes.fill_between(
                x, [b[0] for b in bounds], [b[1] for b in bounds], color=colour, alpha=0.13, lw=0
            )
            top = max(top, *(b[1] for b in bounds))
        top = max(top, *(m + (v.sd or 0.0) for m, (_, v) in zip(mean, lines[method], strict=True)))
        ends.append((mean[-1], method, colour))
    axes.set_ylim(0, top * 1.07 or 1.0)
    # The least overlap is on the right, followed by space for the names.
    axes.set_xlim(overlaps[0] + 0.06 * span, overlaps[-1] - 0.24 * span)
    _label(axes, ends, overlaps[-1] - 0.035 * span)
    if copied:
        axes.plot(*zip(*copied, strict=True), color=FAINT, linestyle="--", linewidth=1, zorder=1)
        at = copied[0][1] + 0.012 * top
        axes.text(copied[0][0], at, COPY_LABEL, fontsize=8, color=FAINT, va="bottom")
    axes.set_xticks(overlaps, [_tick(overlap, data) for overlap in overlaps], fontsize=8.5)
    axes.set_xlabel(
        "overlap: how freely the treatment was assigned (1 at random, towards 0 by the covariates)"
    )
    axes.xaxis.label.set_fontsize(8.5)
    axes.set_title(f"{panel.title} ({panel.ideal})", fontsize=10, loc="left")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    open_axes(axes, "left", "bottom")


def _label(axes: Axes, ends: list[tuple[float, str, str]], x: float) -> None:
    """Write each line's name beside its end; names that would overlap are pushed apart."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    gap = 0.05 * (high - low)
    ends = sorted(ends)
    heights = spread_apart([y for y, _, _ in ends], gap, 0.0, high)
    for (y, method, colour), at in zip(ends, heights, strict=True):
        axes.annotate(
            method,
            (x, y),
            xytext=(x + 0.06 * (right - left), at),
            fontsize=9,
            color=colour,
            weight="bold" if method == OURS else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
        )


def spread_apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending heights as little as needed to lie `gap` apart, and within [low, high] if they fit."""
    groups: list[tuple[float, int]] = []  # mean height and size of each group of touching neighbours
    for height in heights:
        groups.append((min(max(height, low + gap / 2), high - gap / 2), 1))
        while len(groups) > 1:
            (below, n), (above, m) = groups[-2:]
            if above - below >= gap * (n + m) / 2:
                break
            middle = (below * n + above * m) / (n + m)
            half = gap * (n + m) / 2
            groups[-2:] = [(max(min(middle, high - half), low + half), n + m)]
    return [middle + gap * (place - (count - 1) / 2) for middle, count in groups for place in range(count)]


def _tick(overlap: float, data: Sequence[Mapping[str, Any]]) -> str:
    balance = next(entry["balance"] for entry in data if entry["overlap"] == overlap)
    share = next((b["share_extreme"] for b in balance.values() if "share_extreme" in b), None)
    return f"{overlap:g}" + ("" if share is None else f"\n[{100 * share:.0f} %]")


def _sized(panel: Panel, number: float | None) -> float:
    value = number or 0.0
    return abs(value) if panel.magnitude else value


def _bounds(panel: Panel, value: Value) -> tuple[float, float] | None:
    """The interval, or that of the absolute value if the panel shows a magnitude; None if there is none."""
    if value.lo is None or value.hi is None:
        return None
    if not panel.magnitude:
        return value.lo, value.hi
    smallest, largest = sorted((abs(value.lo), abs(value.hi)))
    return (0.0 if value.lo < 0.0 < value.hi else smallest), largest
