"""Effects carried to a photograph's own pixels: exact where there is none, along edges where there is one."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from civae_core.data.images import Preprocessing
from civae_core.native import carry
from civae_core.native.carry import apply_effect, effect_of
from civae_core.native.photo import Photo
from civae_core.native.placement import Placement
from civae_core.synthetic import FaceProcess

SIZE = 16
LANDSCAPE = Photo(np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8))


def seen(photo: Photo, channels: int = 3) -> np.ndarray:
    """The centred square at the model's size, uint8 [C,S,S]."""
    height, width, _ = photo.pixels_HWC.shape
    side = min(width, height)
    box = ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2)
    values = np.rint(photo.pixels_HWC / (photo.peak / 255)).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    small = image.convert("RGB" if channels == 3 else "L").resize(
        (SIZE, SIZE), Image.Resampling.LANCZOS, box=box
    )
    return np.asarray(small).reshape(SIZE, SIZE, channels).transpose(2, 0, 1)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator for each test, so that its draws do not depend on the order of tests."""
    return np.random.default_rng(0)


def centred(photo: Photo) -> Placement:
    return Placement.of_crop(Preprocessing(size=SIZE), *photo.size)


def changed(photo: Photo, change_CSS: np.ndarray, **options: bool) -> np.ndarray:
    effect = effect_of(seen(photo, len(change_CSS)), change_CSS, **options)
    return apply_effect(photo, centred(photo), effect).pixels_HWC


def uniform(levels: float, channels: int = 3) -> np.ndarray:
    return np.full((channels, SIZE, SIZE), levels / 255, dtype=np.float32)


def smooth(rng: np.random.Generator) -> np.ndarray:
    """A change without detail finer than the model's pixels."""
    return ndimage.gaussian_filter(rng.standard_normal((3, SIZE, SIZE)), (0, 1, 1)).astype(np.float32)


def test_no_effect_leaves_every_bit() -> None:
    assert np.array_equal(changed(LANDSCAPE, uniform(0)), LANDSCAPE.pixels_HWC)


@pytest.mark.parametrize(("levels", "expected"), [(0.49, 0), (0.51, 1), (-0.49, 0), (-3.0, -3)])
def test_less_than_half_a_grey_level_is_nothing(levels: float, expected: int) -> None:
    photo = Photo(np.full((60, 60, 3), 100, dtype=np.uint8))
    assert (changed(photo, uniform(levels)) == 100 + expected).all()


def test_in_sixteen_bits_half_a_level_of_eight_is_still_nothing() -> None:
    photo = Photo(np.full((60, 60, 1), 20000, dtype=np.uint16))
    assert (changed(photo, uniform(0.49)) == 20000).all()
    assert (changed(photo, uniform(2.4)) == 20000 + round(2.4 * 257)).all(), "not rounded to eight bits"


def test_only_the_square_changes() -> None:
    out = changed(LANDSCAPE, uniform(40)).astype(int) - LANDSCAPE.pixels_HWC
    assert (out[:, :40] == 0).all() and (out[:, 160:] == 0).all(), "beside the centred 120 × 120"
    unclipped = LANDSCAPE.pixels_HWC <= 215
    assert (out[:, 60:140][unclipped[:, 60:140]] == 40).all()
    assert (out[LANDSCAPE.pixels_HWC > 215] <= 40).all(), "and white is white"


def test_an_effect_of_one_place_stays_there() -> None:
    change = uniform(0)
    change[:, 8, 4] = 0.5
    touched = (changed(LANDSCAPE, change) != LANDSCAPE.pixels_HWC).any(axis=-1)
    rows, columns = touched.nonzero()
    cell = 120 / SIZE
    # Two windows of the regression and the cubic's two samples around the pixel (4, 8).
    assert rows.min() >= (8 - 6) * cell and rows.max() < (9 + 6) * cell
    assert columns.max() < 40 + (5 + 6) * cell
    assert touched[int(8.5 * cell), 40 + int(4.5 * cell)]


def edge(position: int, width: int = 160) -> Photo:
    """Dark left of `position`, light from there on."""
    pixels = np.full((width, width, 3), 200, dtype=np.uint8)
    pixels[:, :position] = 40
    return Photo(pixels)


@pytest.mark.parametrize("position", [77, 80, 84])
def test_an_effect_ends_where_the_photographs_edge_is(position: int) -> None:
    """The dark side turns lighter; one pixel of the model covers ten of the photograph."""
    photo, target = edge(position), edge(position).pixels_HWC.copy()
    target[:, :position] = 100
    change = (seen(Photo(target)).astype(np.float32) - seen(photo)) / 255
    near = slice(position - 12, position + 12)
    errors = {
        follow: np.abs(changed(photo, change, follow_edges=follow)[80, near].astype(int) - target[80, near])
        for follow in (True, False)
    }
    assert errors[True].max() <= 12, "of a step of 60"
    assert errors[True].mean() < 0.25 * errors[False].mean()


def test_shrunk_again_it_is_what_the_model_said(rng: np.random.Generator) -> None:
    """Except for what a photograph cannot show, beyond white and black, and for detail finer than the model sees."""
    photo, shares = edge(77), []
    for _ in range(20):
        change = 0.3 * smooth(rng)
        again = seen(Photo(changed(photo, change)))
        difference = again / 255 - (seen(photo) / 255 + change)
        shares.append(np.sqrt((difference**2).mean() / (change**2).mean()))
    assert np.median(shares) < 0.15 and max(shares) < 0.25


def test_flat_parts_get_the_interpolated_effect(rng: np.random.Generator) -> None:
    """Without edges, following edges makes no difference."""
    photo = Photo(np.full((90, 90, 3), 120, dtype=np.uint8))
    change = (rng.random((3, SIZE, SIZE)).astype(np.float32) - 0.5) * 0.2
    both = [changed(photo, change, follow_edges=follow).astype(int) for follow in (True, False)]
    assert np.abs(both[0] - both[1]).max() <= 1 and (both[0] != 120).mean() > 0.9


def test_the_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    change = (rng.random((3, SIZE, SIZE)).astype(np.float32) - 0.5) * 0.3
    whole = changed(LANDSCAPE, change)
    monkeypatch.setattr(carry, "_TILE", 37)
    tiled = changed(LANDSCAPE, change)
    assert np.abs(whole.astype(int) - tiled).max() <= 1 and (whole != tiled).mean() < 1e-3


def test_large_photographs_take_little_memory_beyond_themselves(rng: np.random.Generator) -> None:
    """In one piece the fields read at three million pixels would take 180 MB."""
    photo = Photo(np.full((1500, 2000, 3), 120, dtype=np.uint8))
    change = smooth(rng)
    effect = effect_of(np.full((3, SIZE, SIZE), 120, dtype=np.uint8), change)
    tracemalloc.start()
    out = apply_effect(photo, centred(photo), effect)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (out.pixels_HWC != 120).mean() > 0.5
    assert peak < 110e6


def test_a_turned_photograph_gets_the_turned_effect(rng: np.random.Generator) -> None:
    """The photograph lies on its side; the model saw it upright, through a rotated square."""
    photo = edge(77)
    change = (rng.random((3, SIZE, SIZE)).astype(np.float32) - 0.5) * 0.2
    effect = effect_of(seen(photo), change)
    upright = Placement(160, 160, 20.0, 30.0, (100.0, 0.0))
    expected = apply_effect(photo, upright, effect).pixels_HWC
    # A quarter to the right takes (x, y) to (160 − y, x): the corner to (130, 20), and `across` points down.
    lying = Photo(np.ascontiguousarray(np.rot90(photo.pixels_HWC, -1)))
    found = apply_effect(lying, Placement(160, 160, 130.0, 20.0, (0.0, 100.0)), effect).pixels_HWC
    # Compared further inside, since squares are faded by where they end.
    difference = np.abs(np.rot90(found).astype(int) - expected)[45:115, 35:105]
    assert difference.max() <= 3 and difference.mean() < 0.5
    assert (expected != photo.pixels_HWC).mean() > 0.2


def test_a_grey_model_lightens_a_coloured_photograph_evenly() -> None:
    out = changed(LANDSCAPE, uniform(10, channels=1)).astype(int) - LANDSCAPE.pixels_HWC
    inside = out[20:100, 60:140][LANDSCAPE.pixels_HWC[20:100, 60:140] <= 245]
    assert (inside == 10).all()


def test_a_grey_photograph_gets_the_grey_of_a_coloured_effect() -> None:
    photo = Photo(np.full((60, 60, 1), 100, dtype=np.uint8))
    change = uniform(0)
    change[0] = 100 / 255
    assert (changed(photo, change) == 100 + round(0.299 * 100)).all()


def test_what_is_transparent_stays() -> None:
    alpha = np.zeros((120, 200), dtype=np.uint8)
    alpha[:60], alpha[30:60] = 255, 120
    photo = Photo(LANDSCAPE.pixels_HWC, alpha)
    effect = effect_of(seen(photo), uniform(20))
    out = apply_effect(photo, centred(photo), effect)
    assert np.array_equal(out.alpha_HW, alpha)
    assert np.array_equal(out.pixels_HWC[60:], photo.pixels_HWC[60:])
    change = out.pixels_HWC[:60, 60:140].astype(int) - photo.pixels_HWC[:60, 60:140]
    assert (change[photo.pixels_HWC[:60, 60:140] < 230] == 20).all()


def test_the_true_effect_of_faces_comes_far_closer_than_by_interpolation() -> None:
    """Faces of 256 pixels whose counterfactual is known at that size; the effect is handed over at 64."""
    process = FaceProcess(overlap=0.5, seed=3, size=256)
    subjects = process.subjects(0, 6, randomised=True)
    errors: dict[bool, list[float]] = {True: [], False: []}
    images, truths = process.render(subjects), process.render(subjects.under({"Young": "flip"}))
    for image_CHW, truth_CHW in zip(images, truths, strict=True):
        photo, truth = (Photo(part.permute(1, 2, 0).numpy()) for part in (image_CHW, truth_CHW))
        small, small_truth = (
            np.asarray(Image.fromarray(part.pixels_HWC).resize((64, 64), Image.Resampling.LANCZOS)).transpose(
                2, 0, 1
            )
            for part in (photo, truth)
        )
        change = (small_truth.astype(np.float32) - small) / 255
        for follow, found in errors.items():
            out = apply_effect(
                photo,
                Placement.of_crop(Preprocessing(size=64), 256, 256),
                effect_of(small, change, follow_edges=follow),
            )
            square = (out.pixels_HWC.astype(float) - truth.pixels_HWC) ** 2
            found.append(square.sum() / ((photo.pixels_HWC.astype(float) - truth.pixels_HWC) ** 2).sum())
    assert np.mean(errors[True]) < 0.5 * np.mean(errors[False]), errors
