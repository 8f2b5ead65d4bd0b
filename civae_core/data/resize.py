"""Lanczos resampling of squares of pictures to one size: Pillow's filter, in a fifth of its time.

cykooz-resizer's filter is Pillow's up to the rounding of its weights, and says the same with any processor's
instructions. It works weights out anew in every call, which takes longer than applying them to one small picture;
so pictures of one shape, as CelebA's are, share its calls. Where it is not installed, Pillow does the same, and
few values of a picture are a grey level apart.
"""

import functools
import itertools
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from PIL import Image

try:
    import cykooz_resizer as fast
except ImportError:  # no wheel for this platform
    fast = None

LARGEST = 2**21
"""Pixels of a picture that is resampled here, which takes copies of it; of more, Pillow takes fewer."""
_LOBES = 3


@dataclass(frozen=True)
class Square:
    """A square of a picture, by its left, its top and its side in pixels; it may lie between them.

    `pixels_HWC` is uint8 of one or three channels.
    """

    pixels_HWC: np.ndarray
    left: float
    top: float
    side: float

    @property
    def place(self) -> tuple[tuple[int, ...], float, float, float]:
        """Where it lies in pictures of which shape."""
        return self.pixels_HWC.shape, self.left, self.top, self.side


def resize_squares(squares: Sequence[Square], made_NCSS: np.ndarray) -> None:
    """Squares of pictures at another size, as by Pillow's `resize(…, LANCZOS, box=…)`, columns before rows.

    Pixels around a square take part. What becomes of one does not depend on the others; neighbours that lie alike
    take less time together.

    Args:
        squares: N of them, of C channels.
        made_NCSS: uint8, filled with the results.
    """
    made = 0
    for _, group in itertools.groupby(squares, key=attrgetter("place")):
        alike = list(group)
        made_NCSS[made : made + len(alike)] = _resized(alike, made_NCSS.shape[-1])
        made += len(alike)


def _resized(alike: Sequence[Square], size: int) -> np.ndarray:
    """Squares that lie alike in pictures of one shape, together: uint8 [N, C, size, size]."""
    count, (height, width, channels) = len(alike), alike[0].pixels_HWC.shape
    left, top, side = alike[0].left, alike[0].top, alike[0].side
    reach = _LOBES * max(side / size, 1.0) + 1
    first, last = max(0, math.floor(top - reach)), min(height, math.ceil(top + side + reach))
    rows = last - first
    # Their columns are of one filter when they lie one below the other; side by side, so are their rows.
    below = b"".join([np.ascontiguousarray(square.pixels_HWC[first:last]).data for square in alike])
    box = (left, 0.0, min(side, width - left), float(rows * count))
    narrow = _filtered(below, (width, rows * count), channels, box, (size, rows * count))
    narrow_NRL = np.frombuffer(narrow, np.uint8).reshape(count, rows, size * channels)
    box = (0.0, top - first, float(size * count), min(side, rows - (top - first)))
    beside = narrow_NRL.transpose(1, 0, 2).tobytes()
    small = _filtered(beside, (size * count, rows), channels, box, (size * count, size))
    return np.frombuffer(small, np.uint8).reshape(size, count, size, channels).transpose(1, 3, 0, 2)


def _filtered(
    pixels: bytes,
    shape: tuple[int, int],
    channels: int,
    box: tuple[float, float, float, float],
    wanted: tuple[int, int],
) -> bytes:
    """What lies in a box of a picture (left, top, width, height) at another size; sizes are width and height."""
    if fast is None:
        left, top, width, height = box
        picture = Image.frombytes("L" if channels == 1 else "RGB", shape, pixels)
        around = (left, top, left + width, top + height)
        return picture.resize(wanted, Image.Resampling.LANCZOS, box=around).tobytes()
    kind = fast.PixelType.U8 if channels == 1 else fast.PixelType.U8x3
    made = fast.ImageData(*wanted, kind)
    _of_thread.resizer().resize(fast.ImageData(*shape, kind, pixels), made, _options(box))
    return made.get_buffer()


class _OfThread(threading.local):
    """A resizer keeps memory for its next picture, and serves one at a time."""

    kept = None

    def resizer(self) -> "fast.Resizer":
        self.kept = self.kept or fast.Resizer()
        return self.kept


_of_thread = _OfThread()


@functools.lru_cache(maxsize=64)
def _options(box: tuple[float, float, float, float]) -> "fast.ResizeOptions":
    lanczos = fast.ResizeAlg.convolution(fast.FilterType.lanczos3)
    return fast.ResizeOptions(lanczos, crop_box=fast.CropBox(*box))
