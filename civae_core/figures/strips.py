"""Subjects at several doses of a treatment, side by side."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from civae_core.figures.grids import GAP, PAPER, magnified, natural_scale, place
from civae_core.figures.pictures import Images, to_picture
from civae_core.figures.text import INK, WARNING_INK, Typesetter

_FRAME = 3
_BETWEEN = 2 * _FRAME + 5
"""Room between cells, so that the frames of neighbours stay apart."""
OUTSIDE_NOTE = "dashed: outside the range seen in training (extrapolation)"


def strip(
    images_KCHW: Images,
    labels: Sequence[str],
    marks: Sequence[bool] | None = None,
    *,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A labelled sweep; doses that training never saw are framed, coloured and explained.

    Args:
        images_KCHW: K images, uint8 or floats in [0, 1]; C 1 or 3.
        labels: what stands over each image, such as `Young=0.5`.
        marks: for each image whether its dose is outside the range seen in training.
        title: a line over the strip.
        scale: magnification; left out, as in `image_grid`.

    Raises:
        ValueError: no images, or labels or marks that do not match them.
    """
    return sweep_sheet(images_KCHW[None], labels, marks, title=title, scale=scale)


def sweep_sheet(
    images_SKCHW: Images,
    labels: Sequence[str],
    marks: Sequence[bool] | None = None,
    row_labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Sweeps of several subjects over the same doses, one below the other, marked as a strip is.

    Args:
        images_SKCHW: K images of each of S subjects.
        labels, marks: K of each, for all subjects.
        row_labels: S texts at the left of the rows.
        title, scale: as for `strip`.

    Raises:
        ValueError: no images, or labels or marks that do not match them.
    """
    subjects, count = images_SKCHW.shape[:2]
    marks = [False] * count if marks is None else marks
    if not subjects or not count or len(labels) != count or len(marks) != count:
        raise ValueError(f"{count} images, {len(labels)} labels and {len(marks)} marks do not make a strip")
    if row_labels is not None and len(row_labels) != subjects:
        raise ValueError(f"{len(row_labels)} row labels for {subjects} rows")
    height, width = images_SKCHW.shape[3:]
    scale = scale or natural_scale(max(height, width))
    cell_width, cell_height = width * scale, height * scale
    type_ = Typesetter()
    lines = [type_.broken(label, cell_width) for label in labels]
    widths = [max([cell_width, *map(type_.width, label)]) for label in lines]
    rows = [label.split("\n") for label in row_labels or []]
    margin = max([type_.width(line) for label in rows for line in label], default=0)
    left_edge = GAP + (margin + _BETWEEN if margin else 0)
    top = GAP + (type_.line_height + GAP if title else 0)
    images_top = top + max(len(label) for label in lines) * type_.line_height + GAP
    tops = [images_top + s * (cell_height + _BETWEEN) for s in range(subjects)]
    foot = type_.line_height + GAP if any(marks) else 0
    sheet_width = left_edge + sum(widths) + _BETWEEN * (count - 1) + GAP
    for text in (title or "", OUTSIDE_NOTE if foot else ""):
        sheet_width = max(sheet_width, type_.width(text) + 2 * GAP)
    sheet = Image.new("RGB", (sheet_width, tops[-1] + cell_height + GAP + foot), PAPER)
    if title:
        type_.draw(sheet, [title], (GAP, GAP, sheet_width, GAP + type_.line_height), centred=False)
    for label, y in zip(rows, tops, strict=False):
        type_.draw(sheet, label, (GAP, y, GAP + margin, y + cell_height), centred=False)
    left = left_edge
    for k in range(count):
        ink = WARNING_INK if marks[k] else INK
        type_.draw(sheet, lines[k], (left, top, left + widths[k], images_top - GAP), ink=ink)
        x = left + (widths[k] - cell_width) // 2
        for images_KCHW, y in zip(images_SKCHW, tops, strict=True):
            place(sheet, magnified(to_picture(images_KCHW[k]), scale), (x, y))
            if marks[k]:
                _dashed_frame(sheet, (x, y, x + cell_width, y + cell_height))
        left += widths[k] + _BETWEEN
    if foot:
        note_box = (GAP, sheet.height - foot, sheet_width, sheet.height - GAP // 2)
        type_.draw(sheet, [OUTSIDE_NOTE], note_box, centred=False, ink=WARNING_INK)
    return sheet


def _dashed_frame(sheet: Image.Image, box: tuple[int, int, int, int], dash: int = 8) -> None:
    """A dashed frame just outside the box, so that it hides none of the image."""
    left, top, right, bottom = box
    brush = ImageDraw.Draw(sheet)
    for x in range(left - _FRAME, right + _FRAME, 2 * dash):
        end = min(x + dash, right + _FRAME) - 1
        brush.rectangle((x, top - _FRAME, end, top - 1), fill=WARNING_INK)
        brush.rectangle((x, bottom, end, bottom + _FRAME - 1), fill=WARNING_INK)
    for y in range(top - _FRAME, bottom + _FRAME, 2 * dash):
        end = min(y + dash, bottom + _FRAME) - 1
        brush.rectangle((left - _FRAME, y, left - 1, end), fill=WARNING_INK)
        brush.rectangle((right, y, right + _FRAME - 1, end), fill=WARNING_INK)
