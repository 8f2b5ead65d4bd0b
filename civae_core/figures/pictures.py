"""Convert between image tensors and pictures, PNG bytes and atomic PNG files; and the pictures of a report."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from civae_core.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

Images = Union[np.ndarray, "Tensor"]
"""NumPy arrays, or tensors on any device; drawing the former needs no torch."""
COMPRESSION = 6
"""Compression level of PNG files, 0 to 9; level 1 takes a quarter of the time, and a seventh more space."""


@dataclass(frozen=True)
class Picture:
    """A figure of a report, with its title and caption."""

    name: str
    """Stem of a file name, such as `ridges`; characters that file names must not contain become hyphens."""
    title: str
    caption: str
    """What a reader who does not program should look for in it."""
    image: Image.Image

    def __post_init__(self) -> None:
        # Names contain attribute names, and one such as `Hair/Colour` must not lead out of the folder.
        object.__setattr__(self, "name", re.sub(r'[\\/:*?"<>|\x00-\x1f]', "-", self.name))


def as_uint8(images: Images) -> np.ndarray:
    """Images [..., H, W] as a uint8 array: floats in [0, 1] are clamped and rounded, uint8 passes through.

    Raises:
        TypeError: the images are neither float nor uint8.
    """
    if not isinstance(images, np.ndarray):
        images = images.detach().to("cpu")
        images = (images.float() if images.is_floating_point() else images).numpy()
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"images are uint8 or floats in [0, 1], not {images.dtype}")
    shown = np.nan_to_num(images.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(shown.clip(0.0, 1.0) * np.float32(255.0)).astype(np.uint8)


def to_picture(image_CHW: Images) -> Image.Image:
    """One image [C, H, W], C 1 or 3, uint8 or float in [0, 1], as an RGB picture."""
    array_CHW = as_uint8(image_CHW)
    array_CHW = np.broadcast_to(array_CHW, (3, *array_CHW.shape[1:]))
    return Image.fromarray(np.ascontiguousarray(array_CHW.transpose(1, 2, 0)))


def at_most(images_NCHW: "Tensor", size: int) -> "Tensor":
    """Shrink images to at most `size` pixels a side by averaging whole blocks of pixels; keep smaller ones."""
    from torch.nn import functional as F

    factor = -(-max(images_NCHW.shape[-2:]) // size)
    return images_NCHW if factor <= 1 else F.avg_pool2d(images_NCHW.float(), factor)


def png_bytes(picture: Image.Image, description: str | None = None) -> bytes:
    """Encode the picture as PNG, with a line that describes it if there is one."""
    buffer = io.BytesIO()
    notes = None if description is None else described(description)
    picture.save(buffer, format="PNG", compress_level=COMPRESSION, pnginfo=notes)
    return buffer.getvalue()


def described(description: str) -> PngInfo:
    """A line that describes a picture, as the `Description` of a PNG."""
    notes = PngInfo()
    notes.add_itxt("Description", description)
    return notes


def inlined(picture: Image.Image) -> str:
    """The picture as a data URL, for the `src` of an `<img>`."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode("ascii")


def write_png(path: Path, picture: Image.Image, description: str | None = None) -> None:
    """Write a PNG, completely or not at all, with a line that describes it if there is one.

    Raises:
        CivaeError: the folder cannot be written, or the disk is full.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(png_bytes(picture, description))
