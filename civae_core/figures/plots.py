"""What every plot shares: a figure without a display, plain axes, colours, and the picture that comes out."""

import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

REPORT_WIDTH = 900
"""Pixels across a report's column."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is too pale for lines."""
LOWER, HIGHER = PALETTE[:2]
"""Arms by their dose: blue and vermilion."""
FAINT = "#7f7f7f"
_DPI = 100


def new_figure(height: int, width: int = REPORT_WIDTH) -> Figure:
    """An empty figure of that many pixels, never registered with pyplot."""
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture; letters that the font lacks are boxes, and the page has the words."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # one for each letter
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def open_axes(axes: Axes, *closed: str) -> None:
    """Takes the frame away but for the sides named, such as `left` and `bottom`."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in closed)


def plain(text: str) -> str:
    """A name from a table as matplotlib prints it letter by letter: a dollar sign starts no formula."""
    return text.replace("$", r"\$")
