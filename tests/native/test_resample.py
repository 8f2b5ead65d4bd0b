"""Reading small fields at many places, against Pillow's bicubic and plain loops."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from civae_core.native.resample import box_mean, cubic_matrix, read_fields


def test_cubic_reading_is_pillows_bicubic() -> None:
    plane = np.random.default_rng(0).random((9, 9)).astype(np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((36, 36), Image.Resampling.BICUBIC))
    matrix = cubic_matrix((np.arange(36) + 0.5) / 4, 9)
    # Pillow leaves out the samples beyond a border where this repeats the last one: compare further inside.
    np.testing.assert_allclose((matrix @ plane @ matrix.T)[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-5)


def test_cubic_weights_sum_to_one_and_pass_through_the_samples() -> None:
    assert np.allclose(cubic_matrix(np.linspace(-1, 8, 50), 7).sum(axis=1), 1, atol=1e-6)
    assert np.allclose(cubic_matrix(np.arange(7) + 0.5, 7), np.eye(7), atol=1e-6)


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
