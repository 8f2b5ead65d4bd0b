"""The position of the model's square in an upright photograph."""

import math
from dataclasses import dataclass

import numpy as np

from civae_core.data.images import Preprocessing

FADE = 0.08
"""Share of the square's side over which an effect fades out towards those sides that lie inside the photograph."""


@dataclass(frozen=True)
class Placement:
    """A square in a photograph, of any size and rotated by any angle.

    The square's coordinates (u, v) run from 0 to 1, right and down; the photograph's (x, y) are in pixels, whose
    centres lie at half-integers. (x, y) = (left, top) + u · across + v · down, with `down` being `across` rotated by
    90°.
    """

    width: int
    height: int
    """Size of the upright photograph."""
    left: float
    top: float
    """Position of (u, v) = (0, 0)."""
    across: tuple[float, float]
    """Vector (x, y) from the square's left side to its right side."""

    @classmethod
    def of_crop(cls, preprocessing: Preprocessing, width: int, height: int) -> "Placement":
        """The centred square that `data.images.decode` crops from an upright photograph of this size."""
        side = preprocessing.crop_side(width, height)
        return cls(width, height, (width - side) / 2, (height - side) / 2, (side, 0.0))

    @property
    def side(self) -> float:
        """Side of the square, in the photograph's pixels."""
        return math.hypot(*self.across)

    @property
    def upright(self) -> bool:
        """Whether the square's sides are parallel to the photograph's."""
        return self.across[1] == 0 and self.across[0] > 0

    def corners(self) -> list[tuple[float, float]]:
        """(x, y) of the square's upper left, upper right, lower left and lower right corners."""
        ax, ay = self.across
        return [
            (self.left + u * ax - v * ay, self.top + u * ay + v * ax)
            for u, v in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of all pixels that the square may touch; empty if it lies outside."""
        xs, ys = zip(*self.corners(), strict=True)
        left, top = max(math.floor(min(xs)), 0), max(math.floor(min(ys)), 0)
        right, bottom = min(math.ceil(max(xs)), self.width), min(math.ceil(max(ys)), self.height)
        return left, top, max(right, left), max(bottom, top)

    def locate(self, x_W: np.ndarray, y_H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(u, v) of the pixels in these columns and rows: [1,W] and [H,1] for an upright square, else [H,W] each."""
        x_1W, y_H1 = x_W[None, :] + 0.5 - self.left, y_H[:, None] + 0.5 - self.top
        if self.upright:
            return x_1W / self.across[0], y_H1 / self.across[0]
        (ax, ay), area = self.across, self.side**2
        return (x_1W * ax + y_H1 * ay) / area, (y_H1 * ax - x_1W * ay) / area

    def weight(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The weight of an effect at (u, v): 1 inside, 0 outside, float32.

        It falls smoothly towards the sides of the square, except those that are the photograph's own.
        """
        open_left, open_top, open_right, open_bottom = self._inner_sides()
        return (
            _ramp(u, open_left) * _ramp(1 - u, open_right) * _ramp(v, open_top) * _ramp(1 - v, open_bottom)
        ).astype(np.float32)

    def _inner_sides(self) -> tuple[bool, bool, bool, bool]:
        """Whether the photograph extends by a pixel or more beyond the left, top, right and bottom sides."""
        if not self.upright:
            return True, True, True, True
        right, bottom = self.left + self.side, self.top + self.side
        return self.left >= 1, self.top >= 1, self.width - right >= 1, self.height - bottom >= 1


def _ramp(inside: np.ndarray, fades: bool) -> np.ndarray:
    """A smooth rise from 0 at the side to 1 at `FADE` inside it; a step if `fades` is False."""
    if not fades:
        return (inside >= 0).astype(np.float64)
    share = np.clip(inside / FADE, 0.0, 1.0)
    return share * share * (3 - 2 * share)
