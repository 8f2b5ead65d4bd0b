"""Read and write a whole photograph without loss."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from civae_core.data.images import content_of, opened, source_name, upright
from civae_core.errors import DataError
from civae_core.figures.pictures import described
from civae_core.files import atomic_file

MOST_PROFILE_BYTES = 2**20
"""Size of the longest ICC profile; Pillow would not read a PNG with a longer one."""

_WIDE_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, Pillow's weights for grey
_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_INCH = 0.0254  # in metres
_MOST_PER_METRE = 2**31 - 1  # the largest number of pixels that PNG can store


@dataclass(frozen=True)
class Photo:
    """An upright photograph; the pixels read from a file are exactly those written to one."""

    pixels_HWC: np.ndarray
    """uint8 or uint16 [H,W,C], one grey channel or red, green and blue, in the colour space of `profile`."""
    alpha_HW: np.ndarray | None = None
    """uint8 [H,W]; 0 is transparent."""
    profile: bytes | None = None
    """ICC profile, of at most `MOST_PROFILE_BYTES`."""
    dpi: tuple[float, float] | None = None
    """Dots per inch, across and down."""

    @property
    def peak(self) -> int:
        """The value of white."""
        return int(np.iinfo(self.pixels_HWC.dtype).max)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels_HWC.shape[1], self.pixels_HWC.shape[0]

    def seen(self, tile: tuple[slice, slice], channels: int) -> np.ndarray:
        """A part as shown to a model of 1 or 3 channels, over white, float32 [C,H,W] in [0,1]."""
        colours_HWC = self.pixels_HWC[tile].astype(np.float32) / self.peak
        if self.alpha_HW is not None:
            alpha_HW1 = self.alpha_HW[tile][..., None].astype(np.float32) / 255
            colours_HWC = 1 - alpha_HW1 * (1 - colours_HWC)
        return in_channels(colours_HWC.transpose(2, 0, 1), channels)

    def with_pixels(self, pixels_HWC: np.ndarray) -> "Photo":
        """The same photograph with other pixels."""
        return replace(self, pixels_HWC=pixels_HWC)


def in_channels(image_CHW: np.ndarray, channels: int) -> np.ndarray:
    """Convert grey to three equal channels, or three channels to grey; the right number of channels is kept."""
    if len(image_CHW) == channels:
        return image_CHW
    if channels == 1:
        return np.tensordot(_LUMA, image_CHW, 1)[None]
    return np.broadcast_to(image_CHW, (channels, *image_CHW.shape[1:]))


def read_native(source: Path | bytes) -> Photo:
    """Read all pixels of a picture file, given by path or content, upright according to its EXIF orientation.

    Palettes become the colours they stand for. Of a file with several pictures, the first is taken.

    Raises:
        DataError: the file is missing, not a picture, damaged or too large; or it cannot be changed in place: CMYK
            and other colour models than RGB and grey, 16 bits in each of several channels, floating-point pixels,
            and 32-bit integers beyond 0 to 65535.
    """
    name = source_name(source)
    with opened(content_of(source), name) as image:
        _require_editable(image, name)
        turned = upright(image)
        profile, dpi = _profile(image.info.get("icc_profile")), _resolution(image.info.get("dpi"))
        if turned.mode in _WIDE_GREY:
            return Photo(_wide(turned, name)[..., None], profile=profile, dpi=dpi)
        return _eight_bit(turned, profile, dpi)


def _profile(found: object) -> bytes | None:
    """The ICC profile if a PNG can hold it, else None; a TIFF may have anything in its place."""
    return found if isinstance(found, bytes) and 0 < len(found) <= MOST_PROFILE_BYTES else None


def _resolution(found: Any) -> tuple[float, float] | None:
    """Dots per inch if a PNG can state them, else None; a TIFF may have anything in their place."""
    try:
        across, down = (float(side) for side in found)
    except (TypeError, ValueError, ArithmeticError):  # ArithmeticError: 0/0, which TIFF allows
        return None
    can_state = all(0.5 <= side / _INCH <= _MOST_PER_METRE for side in (across, down))
    return (across, down) if can_state else None


def _require_editable(image: Image.Image, name: str) -> None:
    if image.mode not in (*_WIDE_GREY, *_PLAIN):
        raise DataError(
            f"{name}: {image.mode} pixels cannot be changed in place",
            hint="convert it to 8-bit RGB first",
        )
    # Pillow reads 16-bit colour as 8-bit, and only the raw mode shows it.
    raw_modes = [
        str(tile.args if isinstance(tile.args, str) else tile.args[0])
        for tile in getattr(image, "tile", ())
        if tile.args
    ]
    if image.mode not in _WIDE_GREY and any(";16" in raw for raw in raw_modes):
        raise DataError(
            f"{name}: 16-bit colour cannot be changed in place",
            hint="convert it to 8-bit RGB first",
        )


def _wide(image: Image.Image, name: str) -> np.ndarray:
    wide_HW = np.asarray(image)
    if wide_HW.min() < 0 or wide_HW.max() > 65535:
        raise DataError(
            f"{name}: 32-bit integer pixels have no agreed range",
            hint="convert it to 16-bit grey or 8-bit RGB first",
        )
    return wide_HW.astype(np.uint16)


def _eight_bit(image: Image.Image, profile: bytes | None, dpi: tuple[float, float] | None) -> Photo:
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        bands = image.convert("LA" if grey else "RGBA")
        values = np.array(bands)
        return Photo(
            np.ascontiguousarray(values[..., :-1]), np.ascontiguousarray(values[..., -1]), profile, dpi
        )
    values = np.array(image.convert("L" if grey else "RGB"))
    return Photo(values[..., None] if grey else values, None, profile, dpi)


def write_native(path: Path, photo: Photo, description: str) -> None:
    """Write a PNG, completely or not at all, with the photograph's profile and a line that describes it.

    Raises:
        CivaeError: the folder cannot be written, or the disk is full.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(png_of(photo, description))


def png_of(photo: Photo, description: str) -> bytes:
    """Encode a photograph as PNG: grey or colour, with alpha if there is any, 8 or 16 bits."""
    values = photo.pixels_HWC
    if photo.alpha_HW is not None:
        values = np.concatenate([values, photo.alpha_HW[..., None]], axis=-1)
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    buffer = io.BytesIO()
    more = {"dpi": photo.dpi} if photo.dpi else {}
    # Run lengths only: for photographs hardly larger than with the thorough search, in a fifth of the time.
    image.save(
        buffer, "PNG", compress_type=3, icc_profile=photo.profile, pnginfo=described(description), **more
    )
    return buffer.getvalue()
