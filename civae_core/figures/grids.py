"""Labelled sheets of images: one column per kind of image, one row per subject."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from civae_core.figures.pictures import Images, to_picture
from civae_core.figures.text import INK, WARNING_INK, Typesetter

PAPER = (255, 255, 255)
OUTLINE = (214, 214, 214)
GAP = 6
_FRAME = 3
_BETWEEN_FRAMES = 2 * _FRAME + 5
"""Space between cells that may have frames, so that the frames of neighbours stay apart."""
LARGEST_CELL = 128
"""Small images are magnified by a whole number, up to this many pixels, so that a face can be seen."""


def image_grid(
    columns: Sequence[tuple[str, Images]],
    row_labels: Sequence[str] | None = None,
    scale: int | None = None,
    *,
    marks: Sequence[bool] | None = None,
    note: str | None = None,
    title: str | None = None,
) -> Image.Image:
    """A sheet such as original | reconstruction | counterfactual | truth.

    Args:
        columns: title and images [N, C, H, W] of each column, uint8 or floats in [0, 1]; C 1 or 3. All
            columns have the same N, H and W.
        row_labels: N texts to the left of the rows.
        scale: magnification; by default the largest whole number that keeps a cell within 128 pixels.
        marks: for each column, whether it is framed and coloured as a warning; cells then leave room for frames,
            whether or not there are any.
        note: a line below the sheet that explains the frames, if there are any.
        title: a line above the sheet.

    Raises:
        ValueError: there are no columns, columns differ in size, or there is a wrong number of labels or marks.
    """
    if not columns:
        raise ValueError("a grid needs at least one column")
    (count, _, height, width) = columns[0][1].shape
    for heading, images_NCHW in columns:
        if (len(images_NCHW), *images_NCHW.shape[2:]) != (count, height, width):
            raise ValueError(
                f"column {heading!r} {tuple(images_NCHW.shape)} does not fit {count} × {height}×{width}"
            )
    if row_labels is not None and len(row_labels) != count:
        raise ValueError(f"{len(row_labels)} row labels for {count} rows")
    if marks is not None and len(marks) != len(columns):
        raise ValueError(f"{len(marks)} marks for {len(columns)} columns")
    edge, between = (GAP // 2, GAP) if marks is None else (GAP, _BETWEEN_FRAMES)
    marks = [False] * len(columns) if marks is None else marks
    scale = scale or natural_scale(max(height, width))
    cell_width, cell_height = width * scale, height * scale
    type_ = Typesetter()
    headings = [type_.broken(heading, cell_width) for heading, _ in columns]
    # A single word wider than its cell widens the column rather than running into the next one.
    column_widths = [max([cell_width, *map(type_.width, lines)]) for lines in headings]
    labels = [label.split("\n") for label in row_labels or []]
    margin = max([type_.width(line) for label in labels for line in label], default=0)
    left = GAP + (margin + between if margin else 0)
    top = edge + (type_.line_height + edge if title else 0)
    cells_top = top + max(len(lines) for lines in headings) * type_.line_height + edge
    tops = [cells_top + row * (cell_height + between) for row in range(count)]
    below = type_.line_height + GAP if note and any(marks) else 0
    sheet_width = left + sum(column_widths) + between * (len(columns) - 1) + GAP
    for text in (title or "", note if note and below else ""):
        sheet_width = max(sheet_width, type_.width(text) + 2 * GAP)
    height_above = cells_top + count * (cell_height + between) - between + GAP
    sheet = Image.new("RGB", (sheet_width, height_above + below), PAPER)
    if title:
        type_.draw(sheet, [title], (GAP, edge, sheet_width, edge + type_.line_height), centred=False)
    for label, y in zip(labels, tops, strict=False):
        type_.draw(sheet, label, (GAP, y, GAP + margin, y + cell_height), centred=False)
    for (_, images_NCHW), lines, marked, column_width in zip(
        columns, headings, marks, column_widths, strict=True
    ):
        ink = WARNING_INK if marked else INK
        type_.draw(sheet, lines, (left, top, left + column_width, cells_top - edge), ink=ink)
        x = left + (column_width - cell_width) // 2
        for row, y in enumerate(tops):
            place(sheet, magnified(to_picture(images_NCHW[row]), scale), (x, y))
            if marked:
                _dashed_frame(sheet, (x, y, x + cell_width, y + cell_height))
        left += column_width + between
    if note and below:
        box = (GAP, height_above, sheet_width, sheet.height - GAP // 2)
        type_.draw(sheet, [note], box, centred=False, ink=WARNING_INK)
    return sheet


def natural_scale(size: int) -> int:
    """The largest whole-number magnification that keeps `size` pixels within `LARGEST_CELL`; at least 1."""
    return max(1, LARGEST_CELL // size)


def magnified(picture: Image.Image, scale: int) -> Image.Image:
    """The picture `scale` times as large, interpolated smoothly: blocks of pixels hide what a face looks like."""
    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)


def place(sheet: Image.Image, cell: Image.Image, corner: tuple[int, int]) -> None:
    """Paste a cell with a hairline around it, so that the edges of a white image stay visible."""
    x, y = corner
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + cell.width, y + cell.height), outline=OUTLINE)
    sheet.paste(cell, corner)


def _dashed_frame(sheet: Image.Image, box: tuple[int, int, int, int], dash: int = 8) -> None:
    """Draw a dashed frame just outside the box, so that it hides none of the image."""
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
