"""The detector, on the photograph of an astronaut that comes with scikit-image, and its parts."""

import numpy as np
import pytest
from PIL import Image

from civae_core.align.mtcnn import FaceFinder, _distinct, _squared, is_installed

needs_extra = pytest.mark.skipif(not is_installed(), reason="the extra `align` is not installed")


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut())


@needs_extra
@pytest.mark.parametrize("scale", [0.5, 1, 4])
def test_a_face_and_its_landmarks_are_found_at_any_size(
    finder: FaceFinder, astronaut: Image.Image, scale: float
) -> None:
    photo = astronaut.resize((round(512 * scale), round(512 * scale)), Image.Resampling.BICUBIC)
    (face,) = finder.find(photo)
    assert face.probability > 0.95
    by_eye = np.array([[203, 101], [246, 103], [225, 126], [203, 140], [245, 140]])
    assert np.abs(face.landmarks_52 / scale - by_eye).max() < 4
    left, top, right, bottom = np.array(face.box) / scale
    assert 165 < left < 190 and 260 < right < 285 and 50 < top < 80 and 160 < bottom < 185


@needs_extra
def test_landmarks_turn_with_the_photograph(finder: FaceFinder, astronaut: Image.Image) -> None:
    (upright,) = finder.find(astronaut)
    (turned,) = finder.find(astronaut.rotate(15, Image.Resampling.BICUBIC))
    eyes = [face.landmarks_52[1] - face.landmarks_52[0] for face in (upright, turned)]
    angles = [np.degrees(np.arctan2(y, x)) for x, y in eyes]
    assert angles[0] - angles[1] == pytest.approx(15, abs=4)


@needs_extra
def test_two_faces_come_largest_first_and_a_wall_has_none(finder: FaceFinder, astronaut: Image.Image) -> None:
    both = Image.new("RGB", (900, 512), "grey")
    both.paste(astronaut.resize((256, 256)), (0, 0))
    both.paste(astronaut, (388, 0))
    large, small = finder.find(both)
    assert large.size > 1.5 * small.size and large.box[0] > 388 > small.box[2]
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert finder.find(Image.new("RGB", (300, 300), "white")) == []
    assert finder.find(Image.fromarray(noise)) == []


@needs_extra
@pytest.mark.parametrize("size", [(1, 1), (5, 400), (11, 11)])
def test_photographs_too_small_for_a_face_have_none(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert finder.find(Image.new("RGB", size)) == []


def test_boxes_that_overlap_a_likelier_one_go() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.7], [1, 0, 11, 10, 0.9], [20, 0, 30, 10, 0.8], [22, 2, 26, 6, 0.5]])
    assert _distinct(boxes, 0.5).tolist() == [1, 2, 3], "90 of 110 pixels are shared by the first two"
    assert _distinct(boxes, 0.9).tolist() == [1, 2, 0, 3]
    assert _distinct(boxes, 0.5, by_smaller=True).tolist() == [1, 2], "the last lies within another"
    assert _distinct(np.zeros((0, 5)), 0.5).tolist() == []


def test_boxes_become_squares_around_their_centres() -> None:
    assert _squared(np.array([[0.0, 10, 8, 14, 0.9]])).tolist() == [[0.0, 8.0, 8.0, 16.0, 0.9]]
