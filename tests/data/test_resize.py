"""Resampling against Pillow, the independent reference."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from civae_core.data import resize
from civae_core.data.resize import Square, resize_squares


def by_pillow(pixels_HWC: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    """Resize columns first, then rows; in one step Pillow chooses the order by the shape, which edges reveal."""
    height = pixels_HWC.shape[0]
    filtered, image = Image.Resampling.LANCZOS, Image.fromarray(pixels_HWC)
    narrow = image.resize((size, height), filtered, box=(left, 0, left + side, height))
    return np.asarray(narrow.resize((size, size), filtered, box=(0, top, size, top + side))).transpose(
        2, 0, 1
    )


def resize_square(pixels_HWC: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    return resized([Square(pixels_HWC, left, top, side)], size)[0]


def resized(squares: Sequence[Square], size: int) -> np.ndarray:
    made_NCSS = np.empty((len(squares), squares[0].pixels_HWC.shape[2], size, size), np.uint8)
    resize_squares(squares, made_NCSS)
    return made_NCSS


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Saturated noise: the hardest case, with overshoots in both directions."""
    generator = np.random.default_rng(height * width)
    levels = np.array([0, 0, 255, 255, 90], np.uint8)
    return levels[generator.integers(0, 5, (height, width, channels))]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(2, 60),
    width=st.integers(2, 60),
    size=st.integers(1, 70),
    share=st.floats(0.2, 1, allow_subnormal=False),
    at=st.floats(0, 1, allow_subnormal=False),
)
def test_within_one_level_of_pillow(height: int, width: int, size: int, share: float, at: float) -> None:
    pixels_HWC = noise(height, width)
    side = share * min(height, width)
    left, top = at * (width - side), (1 - at) * (height - side)
    # A level more where a sum of levels, each of them one beside Pillow's, is made of them.
    expected = by_pillow(pixels_HWC, left, top, side, size).astype(int)
    difference = abs(resize_square(pixels_HWC, left, top, side, size) - expected)
    assert difference.max() <= 2 and (difference > 1).mean() < 0.02


def test_celebas_crop_is_mostly_pillows_to_the_bit() -> None:
    pixels_HWC = noise(218, 178)
    difference = resize_square(pixels_HWC, 14, 34, 150, 64).astype(int) - by_pillow(
        pixels_HWC, 14, 34, 150, 64
    )
    assert abs(difference).max() <= 1 and (difference != 0).mean() < 0.02


def test_at_its_own_size_a_picture_is_kept() -> None:
    pixels_HWC = noise(40, 50)
    np.testing.assert_array_equal(
        resize_square(pixels_HWC, 5, 4, 32, 32), pixels_HWC[4:36, 5:37].transpose(2, 0, 1)
    )


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_plain_surface_stays_what_it_is(level: int) -> None:
    made = resize_square(np.full((50, 50, 3), level, np.uint8), 0.3, 0.7, 49.1, 23)
    assert (made == level).all()


def test_grey_is_one_channel_of_the_same() -> None:
    grey = noise(30, 30, 1)
    made = resize_square(grey, 0, 0, 30, 12)
    assert made.shape == (1, 12, 12) and made.flags.c_contiguous and made.dtype == np.uint8
    np.testing.assert_array_equal(made[0], resize_square(np.repeat(grey, 3, 2), 0, 0, 30, 12)[2])


def test_what_becomes_of_a_picture_does_not_depend_on_its_company() -> None:
    shapes = [(40, 30), (40, 30), (30, 40), (51, 37), (30, 40), (30, 40), (30, 40)]
    squares = [Square(noise(*shape) // (1 + n), 2.3, 1.9, 27.4) for n, shape in enumerate(shapes)]
    squares.insert(0, Square(squares[0].pixels_HWC, 2.4, 1.9, 27.4))
    together = resized(squares, 16)
    assert together.shape == (8, 3, 16, 16)
    for made, square in zip(together, squares, strict=True):
        np.testing.assert_array_equal(made, resized([square], 16)[0])
    assert (together[0] != together[1]).any(), "a little further left"


def test_the_picture_may_lie_in_memory_in_any_order() -> None:
    planes_CHW = np.ascontiguousarray(noise(40, 30).transpose(2, 0, 1))
    lying = Square(planes_CHW.transpose(1, 2, 0), 1, 2, 28)
    upright = Square(noise(40, 30), 1, 2, 28)
    np.testing.assert_array_equal(*resized([lying, upright], 20))


@pytest.mark.skipif(resize.fast is None, reason="Pillow resizes here")
@pytest.mark.parametrize("channels", [1, 3])
def test_every_processor_says_the_same(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = [Square(noise(218, 178, channels), 14, 34, 150)]
    best = resized(squares, 64)
    plain = resize.fast.Resizer()
    assert plain.cpu_extensions != resize.fast.CpuExtensions.none, "nothing to compare"
    plain.cpu_extensions = resize.fast.CpuExtensions.none
    monkeypatch.setattr(resize._of_thread, "kept", plain)
    np.testing.assert_array_equal(resized(squares, 64), best)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_the_fast_resizer_pillow_does_the_same(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = [Square(noise(*shape, channels), 3.3, 1.7, 52.9) for shape in [(60, 70), (60, 70), (70, 60)]]
    fast = resized(squares, 24).astype(int)
    monkeypatch.setattr(resize, "fast", None)
    slow = resized(squares, 24)
    assert slow.dtype == np.uint8
    assert abs(slow - fast).max() <= 1 and (slow != fast).mean() < 0.02


def test_threads_do_not_share_memory() -> None:
    pictures = [noise(40 + n, 40) for n in range(4)]
    alone = [resize_square(picture, 1, 1, 38, 20) for picture in pictures]
    wrong: list[int] = []

    def work(n: int) -> None:
        wrong.extend(n for _ in range(50) if (resize_square(pictures[n], 1, 1, 38, 20) != alone[n]).any())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
