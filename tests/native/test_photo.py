"""Photographs read and written whole: every kind of file is kept, or refused with a reason."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from civae_core.errors import DataError
from civae_core.native.photo import Photo, read_native, write_native

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def written(photo: Photo, tmp_path: Path) -> Image.Image:
    write_native(tmp_path / "out.png", photo, "a note: β")
    return Image.open(tmp_path / "out.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_what_is_read_is_written(tmp_path: Path, mode: str) -> None:
    original = Image.fromarray(np.dstack([COLOUR, GREY]) if mode.endswith("A") else COLOUR).convert(mode)
    original.save(tmp_path / "in.png")
    out = written(read_native(tmp_path / "in.png"), tmp_path)
    assert out.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    assert np.array_equal(np.asarray(out), np.asarray(original.convert(out.mode)))
    assert out.text["Description"] == "a note: β"


def test_transparency_of_a_palette_is_kept(tmp_path: Path) -> None:
    original = Image.fromarray(COLOUR).quantize(16)
    original.save(tmp_path / "in.png", transparency=3)
    expected = Image.open(tmp_path / "in.png").convert("RGBA")
    assert len(np.unique(np.asarray(expected)[..., 3])) == 2, "some pixels are transparent, not all"
    out = written(read_native(tmp_path / "in.png"), tmp_path)
    assert np.array_equal(np.asarray(out), np.asarray(expected))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_kept(tmp_path: Path, suffix: str) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (12, 18), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / f"in{suffix}")
    photo = read_native(tmp_path / f"in{suffix}")
    assert photo.peak == 65535
    out = written(photo, tmp_path)
    assert np.array_equal(np.asarray(out), wide) and out.mode.startswith("I;16")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "in.png", exif=exif)
    out = written(read_native(tmp_path / "in.png"), tmp_path)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "in.png"))
    assert np.array_equal(np.asarray(out), np.asarray(expected))
    assert out.getexif().get(0x0112, 1) == 1, "nothing would turn it once more"


def test_a_colour_profile_and_the_resolution_are_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(COLOUR).save(tmp_path / "in.jpg", icc_profile=profile, dpi=(300, 300), quality=90)
    out = written(read_native(tmp_path / "in.jpg"), tmp_path)
    assert out.info["icc_profile"] == profile
    assert out.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert np.array_equal(np.asarray(out), np.asarray(Image.open(tmp_path / "in.jpg")))


def test_without_a_profile_none_is_made_up(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "in.png")
    assert not {"icc_profile", "dpi"} & written(read_native(tmp_path / "in.png"), tmp_path).info.keys()


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("LAB", ".tif"), ("F", ".tif")]
)
def test_other_colour_models_are_refused(tmp_path: Path, mode: str, suffix: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / f"in{suffix}")
    with pytest.raises(DataError, match=rf"in\{suffix}: {mode} pixels") as caught:
        read_native(tmp_path / f"in{suffix}")
    assert "8-bit RGB" in str(caught.value.hint)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_a_channel_in_colour_are_refused_and_not_cut_to_eight(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    (tmp_path / "in.png").write_bytes(wide_png(colour_type, channels))
    with pytest.raises(DataError, match="16 bits a channel"):
        read_native(tmp_path / "in.png")


def wide_png(colour_type: int, channels: int) -> bytes:
    """A 4×4 PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rng = np.random.default_rng(0)
    rows = b"".join(b"\0" + rng.integers(0, 65536, 4 * channels).astype(">u2").tobytes() for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "whole.png")
    (tmp_path / "in.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"in\.png: "):
        read_native(tmp_path / "in.png")
