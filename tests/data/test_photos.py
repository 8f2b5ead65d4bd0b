"""Decoding one picture: crop, resize, orientation, colour modes, and damaged files."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from civae_core.data.images import Preprocessing, decode, load_photo, whole_picture
from civae_core.errors import DataError


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([255 * x // width, 255 * y // height, 0 * x + 40], -1).astype(np.uint8), "RGB"
    )


def test_a_photo_is_a_contiguous_uint8_tensor(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(gradient(30, 40)))
    y_CHW = load_photo(path, {"crop": None, "size": 16, "channels": 3})
    assert y_CHW.dtype == torch.uint8 and y_CHW.shape == (3, 16, 16) and y_CHW.is_contiguous()
    assert torch.equal(y_CHW, load_photo(path.read_bytes(), {"crop": None, "size": 16, "channels": 3}))


def test_the_crop_is_centred_and_exact() -> None:
    image = gradient(178, 218)
    expected = np.asarray(image.crop((14, 34, 164, 184))).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encoded(image), Preprocessing(150, crop=150)), expected)


def test_without_a_crop_the_largest_square_is_kept() -> None:
    image = gradient(20, 30)
    expected = np.asarray(image.crop((0, 5, 20, 25))).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encoded(image), Preprocessing(20)), expected)


def test_a_crop_larger_than_the_picture_takes_the_largest_square() -> None:
    image = gradient(20, 30)
    np.testing.assert_array_equal(
        decode(encoded(image), Preprocessing(20, crop=150)), decode(encoded(image), Preprocessing(20))
    )


def test_crop_of_scales_the_crop_to_larger_pictures() -> None:
    small, large = gradient(178, 218), gradient(178 * 4, 218 * 4)
    celeba = Preprocessing(16, crop=150, crop_of=178)
    difference = decode(encoded(small), celeba).astype(int) - decode(encoded(large), celeba)
    assert abs(difference).max() <= 2


def test_resizing_averages_instead_of_skipping() -> None:
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    y_CHW = decode(encoded(checks), Preprocessing(8, channels=1))
    assert abs(y_CHW.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(orientation: int, form: str) -> None:
    """Before a picture is turned, Pillow states the upright size of a TIFF but the stored size of other formats."""
    upright = gradient(40, 60)
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, form, exif=exif)
    np.testing.assert_array_equal(
        decode(data, Preprocessing(40)), decode(encoded(upright), Preprocessing(40))
    )
    np.testing.assert_array_equal(np.asarray(whole_picture(data)), np.asarray(upright))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_exif_that_cannot_be_written_again_does_not_keep_a_picture_from_being_turned(form: str) -> None:
    """The description tag is a fraction, on which Pillow's own transposition fails."""
    notes = ImageFileDirectory_v2()
    for tag, kind, value in ((0x0112, 3, 6), (0x010E, 5, IFDRational(1, 2))):
        notes.tagtype[tag] = kind
        notes[tag] = value
    odd = b"Exif\0\0II*\0\x08\0\0\0" + notes.tobytes(8)
    plain = Image.Exif()
    plain[0x0112] = 6
    with_odd, with_plain = (encoded(gradient(40, 60), form, exif=exif) for exif in (odd, plain))
    np.testing.assert_array_equal(decode(with_odd, Preprocessing(40)), decode(with_plain, Preprocessing(40)))


def test_large_jpegs_are_decoded_at_half_the_scale_and_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image = gradient(1599, 1201)
    scales = []
    draft = JpegImageFile.draft

    def watched(self: JpegImageFile, mode: str, size: tuple[int, int]) -> object:
        result = draft(self, mode, size)
        scales.append(round(1599 / self.width, 2))
        return result

    monkeypatch.setattr(JpegImageFile, "draft", watched)
    exif = Image.Exif()
    exif[0x0112] = 6
    data, plain = encoded(image, "JPEG", quality=95, exif=exif), encoded(image, "PNG", exif=exif)
    for size, expected in ((62, [2.0]), (64, [])):
        shape = Preprocessing(size, crop=1000)
        assert abs(decode(data, shape).astype(int) - decode(plain, shape)).max() <= 2
        assert scales == expected, "1000 pixels are 16 times 62, and less than 16 times 64"
        scales.clear()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_modes_come_out_as_grey_or_rgb(mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 200 * 257, np.uint16))
    else:
        plain = Image.new("RGB", (8, 8), (200, 200, 200))
        image = plain.quantize() if mode == "P" else plain.convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    y_CHW = decode(data, Preprocessing(8, channels=channels))
    assert y_CHW.shape == (channels, 8, 8) and y_CHW.dtype == np.uint8
    assert mode == "1" or abs(y_CHW.astype(int) - 200).max() <= 2
    whole = whole_picture(data)
    assert whole.mode == "RGB" and (mode == "1" or abs(np.asarray(whole).astype(int) - 200).max() <= 2)


def test_transparent_parts_become_white() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    assert decode(data, Preprocessing(8)).min() == 255
    assert whole_picture(data).getextrema() == ((255, 255),) * 3


def test_truncated_text_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    jpeg = encoded(gradient(64, 64), "JPEG")
    cases = {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged image"),
        "text.jpg": (b"I am not a picture\n", "not an image"),
        "empty.jpg": (b"", "the file is empty"),
        "missing.jpg": (None, "No such file"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            decode(tmp_path / name, Preprocessing(8))
        assert name in caught.value.message


def test_a_flipped_byte_anywhere_is_survived() -> None:
    data = bytearray(encoded(gradient(16, 16)))
    for place in range(len(data)):
        damaged = bytes(data[:place]) + bytes([data[place] ^ 0xFF]) + bytes(data[place + 1 :])
        try:
            decode(damaged, Preprocessing(8))
        except DataError:
            continue


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_huge_pictures_are_refused_before_decoding(form: str) -> None:
    data = encoded(gradient(10, 10), form)
    with pytest.raises(DataError, match="10 x 10 pixels are too many"):
        decode(data, Preprocessing(8), most_pixels=99)
    assert decode(data, Preprocessing(8), most_pixels=100).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "values",
    [{}, {"size": 0, "channels": 3}, {"size": 8, "channels": 2}, {"size": 8, "shape": 1}, {"size": "8"}],
)
def test_senseless_preprocessing_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="preprocessing"):
        Preprocessing.from_dict(values)
