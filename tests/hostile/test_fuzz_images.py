"""Picture files from strangers, in every format that is read: pixels, or one error."""

import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged
from PIL import Image
from survival import survives

from civae_core.data.images import Preprocessing, decode
from civae_core.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
VARIANTS = [
    *((kind, "RGB", {}) for kind in FORMATS),
    ("JPEG", "CMYK", {}),
    ("JPEG", "L", {"progressive": True}),
    ("PNG", "P", {"transparency": 0}),
    ("PNG", "I;16", {}),
    ("PNG", "RGBA", {"dpi": (72, 72)}),
    ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "F", {}),
    ("GIF", "P", {"save_all": True}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "P", {}),
    ("PPM", "1", {}),
]


@cache
def valid(kind: str, mode: str, options: tuple[tuple[str, object], ...]) -> bytes:
    """A small picture with EXIF's orientation, in a mode of its format."""
    y, x = np.mgrid[0:19, 0:13]
    picture = Image.fromarray(np.stack([x * 19, y * 13, (x + y) * 7], -1).astype(np.uint8))
    if mode == "I;16":
        picture = Image.fromarray((x * 3000 + y).astype(np.uint16))
    elif mode != "RGB":
        picture = picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    extra: dict[str, object] = dict(options)
    if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        extra["exif"] = exif
    if "save_all" in extra:
        extra["append_images"] = [picture.rotate(90), picture.rotate(180)]
    buffer = io.BytesIO()
    picture.save(buffer, kind, **extra)  # type: ignore[arg-type]
    return buffer.getvalue()


def check(data: bytes, size: int = 8, channels: int = 3) -> np.ndarray | None:
    shape = Preprocessing(size=size, channels=channels)
    found = survives("image", lambda: decode(data, shape), may_raise=DataError)
    if found is not None:
        assert found.shape == (channels, size, size) and found.dtype == np.uint8
    return found


def case(number: int) -> bytes:
    kind, mode, options = VARIANTS[number]
    return valid(kind, mode, tuple(options.items()))


@given(number=st.sampled_from(range(len(VARIANTS))), data=st.data(), channels=st.sampled_from([1, 3]))
def test_a_damaged_picture(number: int, data: st.DataObject, channels: int) -> None:
    check(data.draw(damaged(case(number))), channels=channels)


@given(
    start=st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"II*\0",
            b"MM\0*",
            b"BM",
            b"P6 ",
            b"RIFF....WEBP",
        ]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_after_a_familiar_start(start: bytes, rest: bytes) -> None:
    check(start + rest)


@pytest.mark.parametrize(
    "number", range(len(VARIANTS)), ids=[f"{k}-{m}-{'-'.join(o)}" for k, m, o in VARIANTS]
)
def test_the_undamaged_pictures_are_read_but_for_floats(number: int) -> None:
    found = check(case(number))
    assert (found is None) == (VARIANTS[number][1] == "F")


@given(
    values=st.dictionaries(
        st.sampled_from(["size", "channels", "crop", "crop_of", "sizes"]),
        st.one_of(st.none(), st.integers(), st.sampled_from([0, 1, 3, 64, 10**400, 2.5, "64", True, [1]])),
    )
)
def test_any_preprocessing(values: dict[str, object]) -> None:
    """As a model's card may state it."""
    made = survives("preprocessing", lambda: Preprocessing.from_dict(values), may_raise=DataError)
    if made is not None and made.size <= 64:
        survives("preprocessing", lambda: decode(case(0), made), may_raise=DataError)
