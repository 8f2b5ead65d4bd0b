"""Preprocessing of one photograph, from a file's bytes to a square uint8 tensor.

Training images and new photographs are processed by the same function: turn upright (EXIF), convert to grey or RGB,
crop the centre, resize with antialiasing. Plain JPEGs take a faster path to the same pixels.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from civae_core.data.jpeg import decode_plain
from civae_core.data.resize import LARGEST, Square, resize_squares
from civae_core.errors import DataError
from civae_core.os_errors import hint_on_reading
from civae_core.reading import read_at_most

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 89_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""
MAX_BYTES = 6 * MAX_PIXELS + 2**20
"""Larger files are not read: this is enough for the largest picture uncompressed, in three 16-bit channels."""
LARGEST_SIDE = 4096
"""Largest side of the resulting square, in pixels; an untrusted model could ask for any."""

_DAMAGED_HINT = "copy or download it again; if another program can open it, save it again from there"
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Listed explicitly, because Pillow would also pass EPS files to an external interpreter. For a file in neither of the
# first two formats, it loads the decoders of all the formats it knows, which takes long.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What Pillow's decoders are known to raise on damaged files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes model input.

    `crop` is the side in pixels of the centred square that is cut out; None cuts the largest one. With `crop_of`,
    `crop` refers to pictures whose short side is `crop_of` pixels and is scaled for others: CelebA's 150 of 178
    then shows the same part of a larger portrait.
    """

    size: int
    channels: int = 3
    crop: int | None = None
    crop_of: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Build from plain values; raises DataError if a key is unknown, `size` is missing or a value is invalid."""
        try:
            made = cls(**values)
        except TypeError as error:
            raise _not_understood(values) from error
        numbers = [made.size, made.channels, *(n for n in (made.crop, made.crop_of) if n is not None)]
        sensible = all(type(n) is int and 1 <= n <= MAX_PIXELS for n in numbers)
        if not sensible or made.channels not in (1, 3) or made.size > LARGEST_SIDE:
            raise _not_understood(values)
        return made

    def crop_side(self, width: int, height: int) -> float:
        """Side of the centred square to cut from a picture of this size, in pixels of that picture."""
        short = min(width, height)
        if self.crop is None:
            return short
        scale = short / self.crop_of if self.crop_of else 1.0
        return min(self.crop * scale, short)

    def shrink(self, width: int, height: int) -> int:
        """Factor by which a JPEG of this size may be shrunk during decoding: 1 or 2.

        If eight times the final resolution remains, 99.9 % of the values are within one grey level of those from a
        full decoding, and all within two. Factors 4 and 8 never reach this: they come close to averaging blocks.
        """
        return 2 if self.crop_side(width, height) >= 16 * self.size else 1


def load_photo(source: Path | str | bytes, preprocessing: Mapping[str, Any]) -> "Tensor":
    """Read a picture as input for the model.

    Args:
        source: a path, or the content of the file.
        preprocessing: as in the metadata of a prepared folder or a checkpoint; see `Preprocessing`.

    Returns:
        uint8 [C,S,S].

    Raises:
        DataError: the file is missing, not a picture, damaged or too large; or `preprocessing` is invalid.
    """
    import torch  # here, so that callers who need no tensor do not wait for it

    return torch.from_numpy(decode(source, Preprocessing.from_dict(preprocessing)))


def decode(
    source: Path | str | bytes, preprocessing: Preprocessing, most_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Like `load_photo`, but returns a NumPy array uint8 [C,S,S]; raises DataError likewise."""
    square = square_of(source, preprocessing, most_pixels)
    made_NCSS = np.empty((1, preprocessing.channels, preprocessing.size, preprocessing.size), np.uint8)
    resize_squares([square], made_NCSS)
    return made_NCSS[0]


def square_of(
    source: Path | str | bytes, preprocessing: Preprocessing, most_pixels: int = MAX_PIXELS
) -> Square:
    """The square of a picture that the model will see, not yet resized; raises DataError as `load_photo` does."""
    data, name = content_of(source), source_name(source)
    plain = decode_plain(data, preprocessing.channels, preprocessing.shrink, most_pixels)
    if plain is not None:
        side = preprocessing.crop_side(plain.width, plain.height)
        return _square(plain.pixels_HWC, plain.width, plain.height, side)
    with opened(data, name, most_pixels) as image:
        return _by_pillow(image, preprocessing)


def whole_picture(source: Path | str | bytes) -> Image.Image:
    """A whole picture in 8-bit RGB, upright, and over white if transparent; raises DataError as `load_photo` does."""
    with opened(content_of(source), source_name(source)) as image:
        return _eight_bit(upright(image), "RGB")


def content_of(source: Path | str | bytes) -> bytes:
    """Bytes of a picture file, from its path or passed through.

    Raises:
        DataError: the file is missing, not a regular file, empty, or larger than `MAX_BYTES`.
    """
    try:
        data = source if isinstance(source, bytes) else read_at_most(Path(source), MAX_BYTES)
    except OSError as error:
        raise DataError(
            f"cannot read {source_name(source)}: {error.strerror or error}", hint=hint_on_reading(error)
        ) from error
    if not data:
        raise DataError(
            f"{source_name(source)}: the file is empty", hint="copy or download it again, or leave it out"
        )
    return data


@contextmanager
def opened(data: bytes, name: str, most_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture from the content of its file, to be decoded within the block.

    Args:
        data: the content of the file.
        name: name of the picture in messages.
        most_pixels: pictures with more pixels are refused without decoding them.

    Raises:
        DataError: not a picture, damaged, or too large; also in place of errors of the decoder within the block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bombs are refused here, and damage shows as an error of the decoder
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > most_pixels:
                    raise _too_many_pixels(name, f"{image.width} x {image.height}", most_pixels)
                if min(image.size) < 1:
                    raise DataError(f"{name}: damaged image (it has no pixels)", hint=_DAMAGED_HINT)
                yield image
        except Image.UnidentifiedImageError as error:
            raise DataError(f"{name}: not an image", hint="use JPEG, PNG, WebP, TIFF, BMP or GIF") from error
        except Image.DecompressionBombError as error:
            raise _too_many_pixels(name, "its", most_pixels) from error
        except _DECODER_ERRORS as error:
            raise DataError(f"{name}: damaged image ({_reason(error)})", hint=_DAMAGED_HINT) from error


def upright(image: Image.Image) -> Image.Image:
    """Decode a picture and turn it by its EXIF orientation; an upright picture is returned as it is.

    Pillow's own function also rewrites the EXIF data, which fails on tags that few programs read.
    """
    image.load()
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def source_name(source: Path | str | bytes) -> str:
    """Name of a picture in messages: its path, or "image" for bytes."""
    return "image" if isinstance(source, bytes) else str(source)


def _not_understood(values: Mapping[str, Any]) -> DataError:
    return DataError(
        f"preprocessing {dict(values)!r} is not valid",
        hint="the file that holds it is damaged, or was written by another version of civae; use another copy",
    )


def _too_many_pixels(name: str, count: str, most: int) -> DataError:
    return DataError(
        f"{name}: {count} pixels are too many (limit {most:,})", hint="make the picture smaller first"
    )


def _reason(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _by_pillow(image: Image.Image, preprocessing: Preprocessing) -> Square:
    width, height = image.size
    halved = preprocessing.shrink(width, height) == 2 and isinstance(image, JpegImageFile)
    if halved:
        image.draft("", (width // 2, height // 2))
    plain = _eight_bit(upright(image), "L" if preprocessing.channels == 1 else "RGB")
    if not halved:
        width, height = plain.size
    elif image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):  # a quarter turn
        width, height = height, width
    side = preprocessing.crop_side(width, height)
    if plain.width * plain.height <= LARGEST:
        return _square(np.atleast_3d(np.asarray(plain)), width, height, side)
    left, top, side = _placed(plain.width, width, height, side)
    box = (left, top, min(left + side, plain.width), min(top + side, plain.height))
    resized = np.asarray(plain.resize((preprocessing.size,) * 2, Image.Resampling.LANCZOS, box=box))
    return Square(np.atleast_3d(resized), 0, 0, preprocessing.size)


def _square(pixels_HWC: np.ndarray, width: int, height: int, side: float) -> Square:
    return Square(pixels_HWC, *_placed(pixels_HWC.shape[1], width, height, side))


def _placed(decoded: int, width: int, height: int, side: float) -> tuple[float, float, float]:
    """Left, top and side of a picture's centred square, in decoded pixels, perhaps those of a half-size decoding."""
    # Half of an odd side is rounded up in decoding, so the centre must be found from the original size.
    scale = 1 if decoded == width else 2
    return (width - side) / 2 / scale, (height - side) / 2 / scale, side / scale


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """Convert to 8-bit grey or RGB; transparent pictures are laid over white, 16-bit grey is scaled to 8 bits."""
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ValueError("32-bit integer pixels have no agreed range")
        narrow = np.empty(wide.shape, np.uint8)
        for rows in range(0, len(wide), 256):  # all rows of a large scan, as floats, would fill the memory
            narrow[rows : rows + 256] = wide[rows : rows + 256] / 257.0 + 0.5
        return Image.fromarray(narrow).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert(mode)
    return image.convert(mode)
