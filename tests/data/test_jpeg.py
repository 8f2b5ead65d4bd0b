"""The fast path to a JPEG's pixels equals Pillow's to the last bit, or is not taken."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from civae_core.data import jpeg as short_way
from civae_core.data.images import Preprocessing, decode
from civae_core.data.jpeg import decode_plain
from civae_core.errors import DataError

pytest.importorskip("simplejpeg")


@cache
def picture(width: int = 61, height: int = 47) -> Image.Image:
    """Edges, saturated colours and noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * ((x // 7 + y // 5) % 2), 4 * x % 256, 255 - 5 * y % 256], -1)
    return Image.fromarray((pixels + generator.integers(-30, 30, pixels.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def never(width: int, height: int) -> int:
    return 1


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{"quality": 30}, {"quality": 95}, {"progressive": True}, {"restart_marker_rows": 1}]
)
def test_the_same_pixels_as_pillow(subsampling: int, options: dict[str, object]) -> None:
    data = encoded(picture(), subsampling=subsampling, **options)
    plain = decode_plain(data, 3, never)
    assert plain is not None and (plain.width, plain.height) == (61, 47)
    np.testing.assert_array_equal(plain.pixels_HWC, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_files(channels: int) -> None:
    data = encoded(picture().convert("L"))
    plain = decode_plain(data, channels, never)
    assert plain is not None and plain.pixels_HWC.shape == (47, 61, channels)
    np.testing.assert_array_equal(plain.pixels_HWC[:, :, 0], np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("shape", [(61, 47), (62, 48), (63, 46)])
def test_half_the_scale_is_pillows_half(shape: tuple[int, int]) -> None:
    data = encoded(picture(*shape))
    plain = decode_plain(data, 3, lambda width, height: 2)
    image = Image.open(io.BytesIO(data))
    image.draft("", (shape[0] // 2, shape[1] // 2))
    assert plain is not None and (plain.width, plain.height) == shape
    np.testing.assert_array_equal(plain.pixels_HWC, np.asarray(image))


def test_a_photograph_comes_out_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (encoded(picture(width, height)), shape)
        for width, height in ((178, 218), (301, 299), (40, 30))
        for shape in (
            Preprocessing(16, crop=150, crop_of=178),
            Preprocessing(18),
            Preprocessing(32, channels=1),
        )
    ]
    fast = [decode(*case) for case in cases]
    monkeypatch.setattr(short_way, "simplejpeg", None)
    for (data, shape), made in zip(cases, fast, strict=True):
        np.testing.assert_array_equal(decode(data, shape), made)


def test_what_pillow_must_look_at() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = b'<x:xmpmeta tiff:Orientation="6"/>'
    odd = {
        "turned by EXIF": encoded(picture(), exif=exif),
        "turned by XMP": encoded(picture(), xmp=turned),
        "four inks": encoded(picture().convert("CMYK")),
        "kept as red, green and blue": encoded(picture(), keep_rgb=True),
        "another format": b"\x89PNG\r\n\x1a\n",
        "cut short": encoded(picture())[:-300],
        "only a beginning": b"\xff\xd8\xff",
        "nothing": b"",
    }
    assert [name for name, data in odd.items() if decode_plain(data, 3, never) is not None] == []
    assert decode_plain(encoded(picture()), 1, never) is None, "Pillow's grey is not the file's own luma"


def test_only_a_header_can_turn_a_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = encoded(picture()), encoded(picture(), exif=exif)
    for mark in (b"Exif", b"rientation"):
        assert decode_plain(plain + mark, 3, never) is not None, "behind the pixels"
    scan = plain.index(b"\xff\xda")
    assert short_way._header_length(plain) == scan and short_way._header_length(plain[:scan]) == scan
    # An earlier part may hold what looks like the last one's mark.
    decoy = b"\xff\xfe\x00\x08\xff\xda\x00\x00\x00\x00"
    assert decode_plain(plain[:2] + decoy + plain[2:], 3, never) is not None
    assert decode_plain(turned[:2] + decoy + turned[2:], 3, never) is None
    for odd in (b"\xff\xd0", b"\xff\xfe\x00\x00", b"\xff\xff"):  # then all of the file is looked through
        assert short_way._header_length(plain[:2] + odd + plain[2:]) == len(plain) + len(odd)
        assert decode_plain(turned[:2] + odd + turned[2:], 3, never) is None


def test_large_pictures_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_way, "LARGEST", 61 * 47 - 1)
    assert decode_plain(encoded(picture()), 3, never) is None
    monkeypatch.setattr(short_way, "LARGEST", 61 * 47)
    assert decode_plain(encoded(picture()), 3, never) is not None


def test_damage_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict on a damaged file is Pillow's, whether it is read or refused."""
    data = encoded(picture(), quality=80)
    damaged = [
        data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :] for place in range(2, len(data), 7)
    ]

    def verdicts() -> list[object]:
        found: list[object] = []
        for case in damaged:
            try:
                found.append(decode(case, Preprocessing(16)).tobytes())
            except DataError as error:
                found.append(error.message)
        return found

    fast = verdicts()
    monkeypatch.setattr(short_way, "simplejpeg", None)
    different = [n for n, (a, b) in enumerate(zip(fast, verdicts(), strict=True)) if a != b]
    assert len(different) <= len(damaged) // 50, "Pillow refuses some headers that the decoder gets over"
    assert len({str(verdict) for verdict in fast}) > 10
