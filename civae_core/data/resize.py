"""Lanczos resampling of squares of pictures to one size: Pillow's filter, in a fifth of its time.

The filter of cykooz-resizer equals Pillow's up to the rounding of its weights, and gives the same results with any
processor's instructions. Each call computes the weights anew, which takes longer than applying them to one small
picture; pictures of one shape, such as CelebA's, are therefore resized together. Where cykooz-resizer is not
installed, Pillow does the same, and a few values per picture differ by one grey level.
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
"""Most pixels of a picture that is resampled here, which takes copies of it; for larger ones Pillow takes fewer."""
_LOBES = 3


@dataclass(frozen=True)
class Square:
    """A square of a picture, given by its left, top and side in pixels, which need not be whole numbers.

    `pixels_HWC` is uint8 with one or three channels.
    """

    pixels_HWC: np.ndarray
    left: float
    top: float
    side: float

    @property
    def place(self) -> tuple[tuple[int, ...], float, float, float]:
        """Shape of the picture, and left, top and side of the square in it."""
        return self.pixels_HWC.shape, self.left, self.top, self.side


def resize_squares(squares: Sequence[Square], made_NCSS: np.ndarray) -> None:
    """Resize squares of pictures like Pillow's `resize(…, LANCZOS, box=…)`, horizontally before vertically.

    Pixels around a square contribute. The result for a square does not depend on the others; consecutive squares
    with the same `place` are resized together, which takes less time.

    Args:
        squares: N squares with C channels.
        made_NCSS: uint8 array that is filled with the results.
    """
    made = 0
    for _, group in itertools.groupby(squares, key=attrgetter("place")):
        alike = list(group)
        made_NCSS[made : made + len(alike)] = _resized(alike, made_NCSS.shape[-1])
        made += len(alike)


def _resized(alike: Sequence[Square], size: int) -> np.ndarray:
    """Resize squares with the same `place` together: uint8 [N, C, size, size]."""
    count, (height, width, channels) = len(alike), alike[0].pixels_HWC.shape
    left, top, side = alike[0].left, alike[0].top, alike[0].side
    reach = _LOBES * max(side / size, 1.0) + 1
    first, last = max(0, math.floor(top - reach)), min(height, math.ceil(top + side + reach))
    rows = last - first
    # Stacked vertically, the squares share one horizontal filter; side by side, they share one vertical filter.
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
    """Resize a box (left, top, width, height) of a picture; `shape` and `wanted` are (width, height)."""
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
    """One resizer per thread: it keeps memory for its next picture, and serves one picture at a time."""

    kept = None

    def resizer(self) -> "fast.Resizer":
        self.kept = self.kept or fast.Resizer()
        return self.kept


_of_thread = _OfThread()


@functools.lru_cache(maxsize=64)
def _options(box: tuple[float, float, float, float]) -> "fast.ResizeOptions":
    lanczos = fast.ResizeAlg.convolution(fast.FilterType.lanczos3)
    return fast.ResizeOptions(lanczos, crop_box=fast.CropBox(*box))
