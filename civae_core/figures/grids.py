"""Labelled sheets of images: one column per kind of image, one row per subject."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from civae_core.figures.pictures import Images, to_picture
from civae_core.figures.text import Typesetter

PAPER = (255, 255, 255)
OUTLINE = (214, 214, 214)
GAP = 6
LARGEST_CELL = 128
"""Small images are magnified by a whole number up to about this many pixels, so that a face can be seen."""


def image_grid(
    columns: Sequence[tuple[str, Images]],
    row_labels: Sequence[str] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A sheet such as original | reconstruction | counterfactual | truth.

    Args:
        columns: title and images [N, C, H, W] of each column, uint8 or floats in [0, 1]; C 1 or 3. All
            columns have the same N, H and W.
        row_labels: N texts at the left of the rows.
        scale: magnification; left out, the largest whole number that keeps a cell within 128 pixels.

    Raises:
        ValueError: no columns, columns of different sizes, or labels that do not match the rows.
    """
    if not columns:
        raise ValueError("a grid needs at least one column")
    (count, _, height, width) = columns[0][1].shape
    for title, images_NCHW in columns:
        if (len(images_NCHW), *images_NCHW.shape[2:]) != (count, height, width):
            raise ValueError(
                f"column {title!r} {tuple(images_NCHW.shape)} does not fit {count} × {height}×{width}"
            )
    if row_labels is not None and len(row_labels) != count:
        raise ValueError(f"{len(row_labels)} row labels for {count} rows")
    scale = scale or natural_scale(max(height, width))
    cell_width, cell_height = width * scale, height * scale
    type_ = Typesetter()
    titles = [type_.broken(title, cell_width) for title, _ in columns]
    # A single word wider than its cell widens the column rather than running into the next one.
    column_widths = [max([cell_width, *map(type_.width, lines)]) for lines in titles]
    head = max(len(lines) for lines in titles) * type_.line_height + GAP
    labels = [label.split("\n") for label in row_labels or []]
    margin = max([type_.width(line) for label in labels for line in label], default=0)
    left_edge = GAP + (margin + GAP if margin else 0)
    sheet = Image.new(
        "RGB",
        (left_edge + sum(column_widths) + GAP * len(columns), head + count * (cell_height + GAP)),
        PAPER,
    )
    left = left_edge
    for (_, images_NCHW), lines, column_width in zip(columns, titles, column_widths, strict=True):
        type_.draw(sheet, lines, (left, 0, left + column_width, head))
        for row in range(count):
            cell = magnified(to_picture(images_NCHW[row]), scale)
            place(sheet, cell, (left + (column_width - cell_width) // 2, head + row * (cell_height + GAP)))
        left += column_width + GAP
    for row, label in enumerate(labels):
        top = head + row * (cell_height + GAP)
        type_.draw(sheet, label, (GAP, top, GAP + margin, top + cell_height), centred=False)
    return sheet


def natural_scale(size: int) -> int:
    """The largest whole magnification that keeps `size` pixels within `LARGEST_CELL`; at least 1."""
    return max(1, LARGEST_CELL // size)


def magnified(picture: Image.Image, scale: int) -> Image.Image:
    """The picture `scale` times as large, smoothly: blocks of pixels hide what a face looks like."""
    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)


def place(sheet: Image.Image, cell: Image.Image, corner: tuple[int, int]) -> None:
    """Pastes a cell with a hairline around it, so that a white image still shows where it ends."""
    x, y = corner
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + cell.width, y + cell.height), outline=OUTLINE)
    sheet.paste(cell, corner)
