"""Squares cut out of photographs."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from civae_core.align.cut import cut_square
from civae_core.data.images import Preprocessing, decode
from civae_core.native.photo import Photo, png_of
from civae_core.native.placement import Placement


def smooth(height: int, width: int, blur: float) -> np.ndarray:
    """A colourful picture without detail finer than `blur` pixels."""
    noise = np.random.default_rng(0).standard_normal((height, width, 3))
    values = ndimage.gaussian_filter(noise, (blur, blur, 0))
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (218, 178), (900, 700)])
def test_the_centred_square_is_what_a_model_is_shown_anyway(height: int, width: int) -> None:
    pixels = smooth(height, width, blur=height / 40)
    preprocessing = Preprocessing(size=32)
    expected = decode(png_of(Photo(pixels), ""), preprocessing).transpose(1, 2, 0).astype(int)
    found = cut_square(
        Image.fromarray(pixels), Placement.of_crop(preprocessing, width, height), preprocessing.size
    )
    difference = np.abs(np.asarray(found) - expected)
    assert difference.mean() < 1.0 and np.ptp(expected) > 100


def test_a_turned_square_shows_its_contents_upright() -> None:
    """Against SciPy's spline interpolation at the places where the square's pixels lie."""
    pixels = smooth(300, 400, blur=12)
    angle = 0.5
    placement = Placement(400, 300, 180.0, 60.0, (128 * math.cos(angle), 128 * math.sin(angle)))
    centres = (np.arange(32) + 0.5) / 32
    (ax, ay), u, v = placement.across, centres[None, :], centres[:, None]
    x, y = placement.left + u * ax - v * ay, placement.top + u * ay + v * ax
    expected = np.stack(
        [ndimage.map_coordinates(pixels[..., c].astype(float), [y - 0.5, x - 0.5]) for c in range(3)], axis=-1
    )
    found = np.asarray(cut_square(Image.fromarray(pixels), placement, 32)).astype(float)
    assert np.abs(found - expected).mean() < 1.5 and np.abs(found - expected).max() < 8


def test_fine_patterns_do_not_alias() -> None:
    checks = np.indices((800, 800)).sum(axis=0) % 2 * 255
    image = Image.fromarray(np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8))
    found = np.asarray(cut_square(image, Placement(800, 800, 300.0, 20.0, (400.0, 250.0)), 16))
    assert np.abs(found.astype(int) - 127).max() <= 3, "grey, not stripes"


def test_beyond_the_photograph_its_border_goes_on() -> None:
    pixels = np.full((50, 60, 3), 80, dtype=np.uint8)
    pixels[:, 40:] = 200
    found = np.asarray(cut_square(Image.fromarray(pixels), Placement(60, 50, 30.0, -20.0, (90.0, 0.0)), 30))
    assert (np.abs(found[:, 6:].astype(int) - 200) <= 1).all() and (found[:, :2] < 90).all()
    outside = np.asarray(cut_square(Image.fromarray(pixels), Placement(60, 50, 500.0, 500.0, (9.0, 0.0)), 8))
    assert (outside == 200).all()
