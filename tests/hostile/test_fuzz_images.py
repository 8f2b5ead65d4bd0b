"""Picture files from strangers, in every format that is read: pixels, or one error."""

import io
import struct
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
from civae_core.native.photo import png_of, read_native

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


def check_native(data: bytes) -> None:
    """A photograph read at its own size can be written and read back to the same pixels."""
    photo = survives("photo", lambda: read_native(data), may_raise=DataError)
    if photo is not None:
        again = survives("photo", lambda: read_native(png_of(photo, "a note")), may_raise=())
        assert again is not None and np.array_equal(again.pixels_HWC, photo.pixels_HWC)


def case(number: int) -> bytes:
    kind, mode, options = VARIANTS[number]
    return valid(kind, mode, tuple(options.items()))


@given(number=st.sampled_from(range(len(VARIANTS))), data=st.data(), channels=st.sampled_from([1, 3]))
def test_a_damaged_picture(number: int, data: st.DataObject, channels: int) -> None:
    check(data.draw(damaged(case(number))), channels=channels)


@given(number=st.sampled_from(range(len(VARIANTS))), data=st.data())
def test_a_damaged_picture_in_its_own_size(number: int, data: st.DataObject) -> None:
    check_native(data.draw(damaged(case(number))))


NOTES = (270, 282, 283, 296, 306, 34665, 34675, 34853, 700)
"""Numbers of tags: description, resolution, date, profile, XMP and tables of more tags."""
LONG = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of a value by its type in TIFF."""


@st.composite
def noted(draw: st.DrawFn) -> bytes:
    """A TIFF with valid pixels and an orientation, and with tags of any type."""
    pixels = bytes(range(108))
    words = {256: 9, 257: 4, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 4, 279: len(pixels)}
    words[274] = draw(st.integers(1, 8))
    entries = {tag: (4, 1, struct.pack("<I", value)) for tag, value in words.items()}
    for tag in draw(st.sets(st.sampled_from(NOTES), min_size=1)):
        kind, count = draw(st.sampled_from(sorted(LONG))), draw(st.integers(0, 4))
        length = LONG[kind] * count
        entries[tag] = (
            kind,
            count,
            draw(st.binary(min_size=length, max_size=length) | st.just(bytes(length))),
        )
    table, values = struct.pack("<H", len(entries)), b""
    start = 8 + len(pixels) + len(table) + 12 * len(entries) + 4
    for tag, (kind, count, value) in sorted(entries.items()):
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(values))
        values += value if len(value) > 4 else b""
        table += struct.pack("<HHI", tag, kind, count) + inline
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + table + bytes(4) + values


@given(data=noted())
def test_a_picture_with_notes_of_any_kind(data: bytes) -> None:
    check(data)
    check_native(data)


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
    """Any preprocessing that a model's card may state."""
    made = survives("preprocessing", lambda: Preprocessing.from_dict(values), may_raise=DataError)
    if made is not None and made.size <= 64:
        survives("preprocessing", lambda: decode(case(0), made), may_raise=DataError)
