"""Where the model's square lies in a photograph."""

import math

import numpy as np
import pytest

from civae_core.data.images import Preprocessing, decode
from civae_core.native.photo import Photo, png_of
from civae_core.native.placement import FADE, Placement


@pytest.mark.parametrize("size", [(80, 61), (61, 80), (178, 218)])
@pytest.mark.parametrize("crop", [{}, {"crop": 40}, {"crop": 150, "crop_of": 178}])
def test_the_square_is_the_one_that_the_model_is_shown(size: tuple[int, int], crop: dict[str, int]) -> None:
    """A photograph whose colours encode its coordinates shows which part was cut out."""
    x_W, y_H = (np.arange(length) + 0.5 for length in size)
    colours = np.stack(np.broadcast_arrays(x_W[None, :], y_H[:, None], 0.0), axis=-1)
    photo = Photo(np.rint(colours).astype(np.uint8))
    preprocessing = Preprocessing(size=8, **crop)
    seen = decode(png_of(photo, ""), preprocessing)
    placement = Placement.of_crop(preprocessing, *size)
    centres = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(seen[0, 4], placement.left + centres * placement.side, atol=1.6)
    np.testing.assert_allclose(seen[1, :, 4], placement.top + centres * placement.side, atol=1.6)


def test_located_pixels_are_where_the_square_puts_them() -> None:
    turned = Placement(100, 90, 40.0, 20.0, (30 * math.cos(0.5), 30 * math.sin(0.5)))
    u_HW, v_HW = turned.locate(np.arange(100), np.arange(90))
    (ax, ay), x, y = turned.across, 51, 37
    u, v = u_HW[y, x], v_HW[y, x]
    assert turned.left + u * ax - v * ay == pytest.approx(x + 0.5)
    assert turned.top + u * ay + v * ax == pytest.approx(y + 0.5)
    left, top, right, bottom = turned.box
    inside = (u_HW >= 0) & (u_HW <= 1) & (v_HW >= 0) & (v_HW <= 1)
    rows, columns = inside.nonzero()
    assert (left, top) <= (columns.min(), rows.min()) and right > columns.max() and bottom > rows.max()
    assert inside.sum() == pytest.approx(900, rel=0.02), "the square's area"


def test_an_upright_square_is_located_separably() -> None:
    upright = Placement(100, 90, 40.0, 20.0, (30.0, 0.0))
    nearly = Placement(100, 90, 40.0, 20.0, (30.0, 1e-9))
    x, y = np.arange(100), np.arange(90)
    for one, other in zip(upright.locate(x, y), nearly.locate(x, y), strict=True):
        np.testing.assert_allclose(np.broadcast_to(one, (90, 100)), other, atol=1e-6)
    assert [part.shape for part in upright.locate(x, y)] == [(1, 100), (90, 1)]


def test_effects_fade_where_the_photograph_goes_on_and_only_there() -> None:
    """A portrait's largest square: the photograph continues above and below it, but not to its left and right."""
    portrait = Placement.of_crop(Preprocessing(size=8), 60, 100)
    weight = portrait.weight(*portrait.locate(np.arange(60), np.arange(100)))
    assert (weight[50] == 1).all(), "the photograph's own sides"
    assert (weight[:20] == 0).all() and (weight[80:] == 0).all(), "outside the square"
    column = weight[20:50, 30]
    assert (np.diff(column) >= 0).all() and column[0] < 0.1
    assert column[math.ceil(FADE * 60)] == 1 and column[1] < 1
    assert np.array_equal(weight, weight[::-1])


def test_a_turned_square_fades_on_all_sides() -> None:
    turned = Placement(100, 100, 50.0, 20.0, (30.0, 30.0))
    weight = turned.weight(*turned.locate(np.arange(100), np.arange(100)))
    assert weight[50, 50] == 1
    outline = [(0.01, 0.5), (0.99, 0.5), (0.5, 0.01), (0.5, 0.99)]
    assert all(turned.weight(np.array([[u]]), np.array([[v]])) < 0.1 for u, v in outline)


def test_a_square_outside_the_photograph_has_no_pixels() -> None:
    left, top, right, bottom = Placement(10, 10, 50.0, 50.0, (5.0, 0.0)).box
    assert (right - left) * (bottom - top) == 0
