"""Fast decoding of plain JPEGs without Pillow, with the same result to the last bit.

simplejpeg passes the whole file to libjpeg-turbo, the decoder that Pillow also uses, and takes half of Pillow's time.
Anything unusual is left to Pillow: colours other than YCbCr and grey, a stated orientation, large pictures, and
files that the decoder rejects.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from civae_core.data.resize import LARGEST

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow decodes instead, only slower
    simplejpeg = None

_START = b"\xff\xd8\xff"
_MARKS = (b"Exif", b"rientation")
"""One of these occurs in any file that states an orientation, in EXIF or XMP; a chance match only costs time."""
_SCAN = 0xDA
"""Marker of the last part of a header, after which the pixel data begin."""
_PARTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
"""Markers that are followed by a length."""


@dataclass(frozen=True)
class Plain:
    """A decoded JPEG: uint8 [H,W,C], perhaps decoded at half size, and the full size that the file states."""

    pixels_HWC: np.ndarray
    width: int
    height: int


def decode_plain(
    data: bytes, channels: int, shrink: Callable[[int, int], int], most_pixels: int = LARGEST
) -> Plain | None:
    """Decode a plain JPEG; None if the file has to be left to Pillow.

    Args:
        data: the content of the file.
        channels: 1 or 3.
        shrink: returns, for a width and height, the factor by which both may be shrunk: 1 or 2.
        most_pixels: pictures with more pixels are left to Pillow, as are those larger than `LARGEST`.
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
    except ValueError:  # damaged; Pillow can decode some such files
        return None
    return Plain(pixels_HWC, width, height)


def _header_length(data: bytes) -> int:
    """Offset of a JPEG's pixel data, up to which Pillow looks for an orientation; if unclear, the end of the file."""
    place = len(_START) - 1
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] in _PARTS:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _SCAN:
            return place
        if length < 2:
            break
        place += 2 + length
    return len(data)
