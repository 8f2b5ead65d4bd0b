"""Lanczos resampling of small pictures by matrix products: Pillow's filter, in less than half its time.

Weights are multiples of 2⁻¹⁴ and pixels are bytes, so every product and sum of a pass is a whole number below 2²⁴ of
such parts, which float32 holds exactly: the result does not depend on the library of matrix products, on its threads
or on the order of its sums. Pillow's weights are finer: done in the same order, columns first, it says the same or
one grey level beside it.
"""

import functools
import math
import threading
from dataclasses import dataclass

import numpy as np

LARGEST = 2**21
"""Pixels of a picture that is resampled here; of more, floats would take much memory. Pillow's bytes do as well."""
_KEPT = 2**21
"""Floats that are kept for the next picture."""
_LOBES = 3
_PARTS = 2**14
_ROWS = 16
"""Results that share one product: their windows overlap, and the zeros around them are few."""


@dataclass(frozen=True)
class _Band:
    """Some neighbouring results: `made` of them, out of the pixels `taken`, by `weights` [made, taken]."""

    made: slice
    taken: slice
    weights: np.ndarray


def resize_square(pixels_HWC: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    """A square of a picture at another size, as by Pillow's `resize(…, LANCZOS, box=…)`.

    Args:
        pixels_HWC: uint8, one or three channels.
        left, top, side: the square, in pixels; it may lie between them, and pixels around it take part.
        size: side of the result.

    Returns:
        uint8 [C, size, size], contiguous.
    """
    height, width, channels = pixels_HWC.shape
    across, down = _bands(width, left, side, size), _bands(height, top, side, size)
    first_x, first_y = across[0].taken.start, down[0].taken.start
    window = pixels_HWC[first_y : down[-1].taken.stop, first_x : across[-1].taken.stop]
    pixels_CHW, narrow_CHS, result_CSS = _scratch.arrays(
        (channels, *window.shape[:2]), (channels, len(window), size), (channels, size, size)
    )
    pixels_CHW[:] = np.ascontiguousarray(window.transpose(2, 0, 1))  # bytes are moved faster than floats
    lines_LW, narrow_LS = pixels_CHW.reshape(-1, window.shape[1]), narrow_CHS.reshape(-1, size)
    # Columns first, and whole levels between the passes: at hard edges both can be seen.
    for band in across:
        taken = slice(band.taken.start - first_x, band.taken.stop - first_x)
        np.matmul(lines_LW[:, taken], band.weights.T, out=narrow_LS[:, band.made])
    np.floor(_within_levels(narrow_CHS), out=narrow_CHS)
    for band in down:
        taken = slice(band.taken.start - first_y, band.taken.stop - first_y)
        np.matmul(band.weights, narrow_CHS[:, taken], out=result_CSS[:, band.made])
    return _within_levels(result_CSS).astype(np.uint8)  # which cuts off what floor would


class _Scratch(threading.local):
    """Memory kept from picture to picture: to be given it by the system each time takes longer than the sums."""

    kept = np.empty(0, np.float32)
    shaped: tuple[tuple[tuple[int, ...], ...], list[np.ndarray]] = ((), [])
    """What was asked for last: pictures mostly come in one size."""

    def arrays(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        if self.shaped[0] != shapes:
            made = self._made(shapes)
            self.shaped = (shapes, made) if made[0].base is self.kept else ((), [])
            return made
        return self.shaped[1]

    def _made(self, shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
        sizes = [math.prod(shape) for shape in shapes]
        flat = self.kept
        if flat.size < sum(sizes):
            flat = np.empty(sum(sizes), np.float32)
            if flat.size <= _KEPT:
                self.kept = flat
        ends = np.cumsum(sizes)
        return [flat[e - n : e].reshape(shape) for e, n, shape in zip(ends, sizes, shapes, strict=True)]


_scratch = _Scratch()


def _within_levels(values: np.ndarray) -> np.ndarray:
    """In place, what cut down to whole numbers is rounded to 0 … 255; a half goes up, as in Pillow."""
    values += 0.5
    return values.clip(0, 255, out=values)


@functools.lru_cache(maxsize=64)
def _bands(length: int, start: float, side: float, size: int) -> tuple[_Band, ...]:
    """How `size` results are made of the pixels of a line of `length`, from `start` over `side`."""
    scale = side / size
    stretch = max(scale, 1.0)  # enlarging interpolates; only shrinking widens the filter
    centres = start + (np.arange(size) + 0.5) * scale
    lows = np.maximum((centres - _LOBES * stretch + 0.5).astype(int), 0)
    highs = np.minimum((centres + _LOBES * stretch + 0.5).astype(int), length)
    bands = []
    for first in range(0, size, _ROWS):
        made = slice(first, min(first + _ROWS, size))
        taken = slice(int(lows[made].min()), int(highs[made].max()))
        places = np.arange(taken.start, taken.stop)
        distances = (places - centres[made, None] + 0.5) / stretch
        weights = np.sinc(distances) * np.sinc(distances / _LOBES)
        within = (places >= lows[made, None]) & (places < highs[made, None])
        weights = np.where(within & (np.abs(distances) < _LOBES), weights, 0.0)
        parts = np.rint(weights / weights.sum(1, keepdims=True) * _PARTS)
        rows = np.arange(len(parts))
        parts[rows, parts.argmax(1)] += _PARTS - parts.sum(1)  # a plain surface stays what it is
        bands.append(_Band(made, taken, (parts / _PARTS).astype(np.float32)))
    return tuple(bands)
