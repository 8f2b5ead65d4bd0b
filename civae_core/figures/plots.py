"""What all plots share: figures without a display, plain axes, colours, and rendering to a picture."""

import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

REPORT_WIDTH = 900
"""Width of a report's column, in pixels."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow, which is too pale for lines."""
LOWER, HIGHER = PALETTE[:2]
"""Colours of the arms with the lower dose, blue, and the higher one, vermilion."""
FAINT = "#7f7f7f"
_DPI = 100


def new_figure(height: int, width: int = REPORT_WIDTH) -> Figure:
    """An empty figure of this size in pixels, never registered with pyplot."""
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure) -> Image.Image:
    """Render the figure as an RGB picture; letters that the font lacks become boxes, but the page has the text."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # issued for each letter
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def open_axes(axes: Axes, *closed: str) -> None:
    """Remove the frame except for the sides named, such as `left` and `bottom`."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in closed)


def plain(text: str) -> str:
    """Escape a name from a table so that matplotlib prints it literally: a dollar sign must not start a formula."""
    return text.replace("$", r"\$")
