"""The short way from a plain JPEG's bytes to its pixels, past Pillow, with the same result to the last bit.

simplejpeg hands the whole file to libjpeg-turbo, the decoder that Pillow uses too, and takes half of Pillow's time.
Anything out of the ordinary is left to Pillow: other colours than YCbCr and grey, a stated orientation, large
pictures, and whatever the decoder finds wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from civae_core.data.resize import LARGEST

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow decodes as well, only slower
    simplejpeg = None

_START = b"\xff\xd8\xff"
_MARKS = (b"Exif", b"rientation")
"""What a file that is to be turned holds, as EXIF or as XMP; a chance match costs only time."""
_SCAN = 0xDA
"""Marks the last part of a header, after which pixels begin."""
_PARTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
"""Marks that are followed by a length."""


@dataclass(frozen=True)
class Plain:
    """A decoded JPEG: uint8 [H,W,C], and the size that the file states; half of it may have been decoded."""

    pixels_HWC: np.ndarray
    width: int
    height: int


def decode_plain(
    data: bytes, channels: int, shrink: Callable[[int, int], int], most_pixels: int = LARGEST
) -> Plain | None:
    """A plain JPEG's pixels, or None where Pillow has to look at it.

    Args:
        data: the file's content.
        channels: 1 or 3.
        shrink: told width and height, by how much both may be shrunk: 1 or 2.
        most_pixels: of a larger picture Pillow has to tell; so it has of one beyond `LARGEST`.
    """
    if simplejpeg is None or not data.startswith(_START):
        return None
    header = data[: _header_length(data)]
    if any(mark in header for mark in _MARKS):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        plain = colours == "Gray" or (colours == "YCbCr" and channels == 3)
        if not plain or not 0 < height * width <= min(most_pixels, LARGEST):
            return None
        by = shrink(width, height)
        wanted = (
            {}
            if by == 1
            else {"min_height": -(-height // by), "min_width": -(-width // by), "min_factor": by}
        )
        pixels_HWC = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", **wanted)
    except ValueError:  # damage, of which Pillow gets over some
        return None
    return Plain(pixels_HWC, width, height)


def _header_length(data: bytes) -> int:
    """Where a JPEG's pixels begin, up to which Pillow looks for how to turn it; where that is unclear, its end."""
    place = len(_START) - 1
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] in _PARTS:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _SCAN:
            return place
        if length < 2:
            break
        place += 2 + length
    return len(data)
