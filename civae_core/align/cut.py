"""Cut a square of any size and angle out of a photograph without aliasing."""

import numpy as np
from PIL import Image

from civae_core.native.placement import Placement

_FINER = 3
"""Pixels read for each output pixel, in each direction."""
_MARGIN = 4


def cut_square(photo: Image.Image, placement: Placement, size: int) -> Image.Image:
    """The content of the square, at size × size pixels.

    Outside the photograph its outermost pixels are repeated, as in CelebA's aligned portraits.
    """
    steps = size * _FINER
    shrink = max(int(placement.side / steps), 1)
    corners = np.array(placement.corners())
    left, top = (np.floor(corners.min(axis=0)) - _MARGIN * shrink).astype(int).tolist()
    right, bottom = (np.ceil(corners.max(axis=0)) + _MARGIN * shrink).astype(int).tolist()
    around = _cut_extended(photo, left, top, right, bottom)
    if shrink > 1:
        around = around.reduce(shrink)
    x0, y0 = (placement.left - left) / shrink, (placement.top - top) / shrink
    ax, ay = (part / shrink / steps for part in placement.across)
    fine = around.transform(
        (steps, steps), Image.Transform.AFFINE, (ax, -ay, x0, ay, ax, y0), Image.Resampling.BICUBIC
    )
    return fine.resize((size, size), Image.Resampling.LANCZOS)


def _cut_extended(photo: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """A box of the photograph, which may lie partly or wholly outside it."""
    rows = np.clip(np.arange(top, bottom), 0, photo.height - 1)
    columns = np.clip(np.arange(left, right), 0, photo.width - 1)
    inside = photo.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    if inside.size == (right - left, bottom - top):
        return inside
    values = np.asarray(inside)
    return Image.fromarray(values[(rows - rows[0])[:, None], (columns - columns[0])[None]])
