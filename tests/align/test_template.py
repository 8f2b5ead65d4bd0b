"""Squares in which faces lie as in CelebA's portraits."""

import math

import numpy as np
import pytest

from civae_core.align.template import LANDMARKS_52, TOLERANCE, is_aligned, place_face
from civae_core.celeba import HEIGHT, WIDTH
from civae_core.data.images import Preprocessing
from civae_core.native.placement import Placement

CELEBA = Preprocessing(size=64, crop=150, crop_of=178)


def test_a_portrait_that_is_aligned_keeps_its_square() -> None:
    found = place_face(LANDMARKS_52, CELEBA, WIDTH, HEIGHT)
    crop = Placement.of_crop(CELEBA, WIDTH, HEIGHT)
    np.testing.assert_allclose(found.corners(), crop.corners(), atol=1e-9)
    assert is_aligned(found, crop)


@pytest.mark.parametrize("preprocessing", [CELEBA, Preprocessing(size=64)])
def test_a_moved_turned_and_enlarged_portrait_brings_its_square_along(preprocessing: Preprocessing) -> None:
    angle, scale, shift = 0.4, 3.5, np.array([700.0, 250.0])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = place_face(LANDMARKS_52 @ turn.T + shift, preprocessing, 2000, 1500)
    square = Placement.of_crop(preprocessing, WIDTH, HEIGHT)
    np.testing.assert_allclose(found.corners(), np.array(square.corners()) @ turn.T + shift, atol=1e-6)
    assert found.side == pytest.approx(scale * square.side)


def test_where_a_nose_points_moves_nothing() -> None:
    turned_away = LANDMARKS_52.copy()
    turned_away[2] += [15, 3]
    one, other = (place_face(points, CELEBA, WIDTH, HEIGHT) for points in (LANDMARKS_52, turned_away))
    assert one == other


@pytest.mark.parametrize(("share", "expected"), [(0.9 * TOLERANCE, True), (1.1 * TOLERANCE, False)])
def test_aligned_is_what_is_off_by_less_than_the_tolerance(share: float, expected: bool) -> None:
    crop = Placement.of_crop(CELEBA, WIDTH, HEIGHT)
    moved = place_face(LANDMARKS_52 + np.array([share * crop.side, 0]), CELEBA, WIDTH, HEIGHT)
    assert is_aligned(moved, crop) == expected
