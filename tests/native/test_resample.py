"""Reading small fields at many places, against the paper's numbers and plain means."""

import numpy as np
import pytest
from scipy import ndimage

from civae_core.native.resample import box_mean, cubic_matrix, read_fields


def test_the_cubic_is_mitchells() -> None:
    """The paper's kernel with B = C = 1/3: 8/9 and 1/18 at samples, 77/144 and −5/144 between them."""
    np.testing.assert_allclose(
        cubic_matrix(np.array([3.5]), 7)[0], [0, 0, 1 / 18, 8 / 9, 1 / 18, 0, 0], atol=1e-6
    )
    between = [0, -5 / 144, 77 / 144, 77 / 144, -5 / 144, 0, 0]
    np.testing.assert_allclose(cubic_matrix(np.array([3.0]), 7)[0], between, atol=1e-6)


def test_straight_lines_stay_straight_and_the_outermost_sample_goes_on() -> None:
    positions = np.linspace(2, 7, 31)
    np.testing.assert_allclose(cubic_matrix(positions, 9) @ np.arange(9), positions - 0.5, atol=1e-5)
    np.testing.assert_allclose(cubic_matrix(np.array([-4.0, 20.0]), 9) @ np.arange(9), [0, 8], atol=1e-6)
    assert np.allclose(cubic_matrix(np.linspace(-1, 10, 50), 9).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("radius", [1, 3])
def test_box_mean_is_the_mean_of_what_lies_in_the_window(radius: int) -> None:
    plane = np.random.default_rng(1).random((2, 6, 8))
    for row, column in [(0, 0), (2, 4), (5, 7)]:
        window = plane[
            :, max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1
        ]
        np.testing.assert_allclose(box_mean(plane, radius)[:, row, column], window.mean(axis=(1, 2)))


def test_a_part_is_read_as_the_whole_is() -> None:
    fields = np.random.default_rng(2).random((3, 8, 8)).astype(np.float32)
    u_1W, v_H1 = np.linspace(0, 1, 40)[None], np.linspace(0, 1, 30)[:, None]
    whole = read_fields(fields, u_1W, v_H1)
    part = read_fields(fields, u_1W[:, 10:15], v_H1[20:22])
    np.testing.assert_allclose(part, whole[:, 20:22, 10:15], atol=1e-6)


def test_turned_places_are_read_like_any_others() -> None:
    rng = np.random.default_rng(3)
    fields = ndimage.gaussian_filter(rng.random((2, 16, 16)), (0, 1, 1)).astype(np.float32)
    u_1W, v_H1 = np.linspace(0.1, 0.9, 31)[None], np.linspace(0.2, 0.8, 23)[:, None]
    grid = np.broadcast_to(u_1W, (23, 31)), np.broadcast_to(v_H1, (23, 31))
    np.testing.assert_allclose(read_fields(fields, *grid), read_fields(fields, u_1W, v_H1), atol=4e-3)
