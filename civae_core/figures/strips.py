"""Subjects at several doses of a treatment, side by side."""

from collections.abc import Sequence

from PIL import Image

from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import Images

EXTRAPOLATED = "extrapolation"


def strip(
    images_KCHW: Images,
    labels: Sequence[str],
    marks: Sequence[bool] | None = None,
    *,
    title: str | None = None,
    scale: int | None = None,
    beyond: str = EXTRAPOLATED,
) -> Image.Image:
    """A labelled sweep; doses outside the training range are framed, coloured and explained.

    Args:
        images_KCHW: K images, uint8 or floats in [0, 1]; C 1 or 3.
        labels: the text above each image, such as `Young=0.5`.
        marks: for each image, whether its dose is outside the training range.
        title: a line above the strip.
        scale: magnification; by default as in `image_grid`.
        beyond: what images at such doses are, in a few words.

    Raises:
        ValueError: there are no images, or the number of labels or marks differs from theirs.
    """
    return sweep_sheet(images_KCHW[None], labels, marks, title=title, scale=scale, beyond=beyond)


def sweep_sheet(
    images_SKCHW: Images,
    labels: Sequence[str],
    marks: Sequence[bool] | None = None,
    row_labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    scale: int | None = None,
    beyond: str = EXTRAPOLATED,
) -> Image.Image:
    """Sweeps of several subjects over the same doses, one below the other, marked as in `strip`.

    Args:
        images_SKCHW: K images of each of S subjects.
        labels, marks: K of each, the same for all subjects.
        row_labels: S texts to the left of the rows.
        title, scale, beyond: as for `strip`.

    Raises:
        ValueError: there are no images, or the number of labels or marks differs from theirs.
    """
    count = images_SKCHW.shape[1]
    marks = [False] * count if marks is None else marks
    if not len(images_SKCHW) or not count or len(labels) != count or len(marks) != count:
        raise ValueError(f"{count} images, {len(labels)} labels and {len(marks)} marks do not make a strip")
    columns = [(label, images_SKCHW[:, k]) for k, label in enumerate(labels)]
    note = f"dashed: outside the range seen in training ({beyond})"
    return image_grid(columns, row_labels, scale, marks=marks, note=note, title=title)
