"""The image while it is being painted, and windows of it.

A layer is computed only on a window: the pixels that its shapes can reach in any pose. This gives most of the speed,
and makes interventions local by construction.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from civae_core.synthetic.look import MAX_SCALE, MAX_SHIFT, MAX_TILT, MIN_SCALE, Look

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in face (or body) coordinates."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels with its face coordinates u, v [N, h, w]."""

    rows: slice
    columns: slice
    u: Tensor
    v: Tensor


@lru_cache(maxsize=256)
def pixel_range(low: float, high: float, size: int) -> slice:
    """The pixels that overlap [low, high] of the image's [−1, 1], and one more on each side for the edge's ramp."""
    first = int((low + 1.0) / 2.0 * size) - 1
    last = int((high + 1.0) / 2.0 * size) + 2
    return slice(max(first, 0), min(max(last, 1), size))


class Canvas:
    """An image of each of N subjects, float32 RGB [N, 3, S, S], painted from back to front."""

    def __init__(self, look: Look, size: int) -> None:
        some = look.number["cos"]
        self.size = size
        self.look = look
        self.rgb = torch.empty(len(some), 3, size, size, dtype=some.dtype, device=some.device)
        # Pixel centres, and the width of a pixel in image and (per subject) in face coordinates.
        self.centres = (torch.arange(size, dtype=some.dtype, device=some.device) + 0.5) * (2.0 / size) - 1.0
        self.image_pixel = 2.0 / size
        self.pixel = self.image_pixel / look.number["scale"]

    def body(self, box: Box) -> Window:
        """A window in body coordinates, which shift with the head but are never tilted or scaled."""
        left, top, right, bottom = box
        rows = pixel_range(top - MAX_SHIFT, bottom + MAX_SHIFT, self.size)
        columns = pixel_range(left - MAX_SHIFT, right + MAX_SHIFT, self.size)
        n = self.look.number
        u = self.centres[None, None, columns] - n["shift_x"]
        v = self.centres[None, rows, None] - n["shift_y"]
        shape = (len(u), v.shape[1], u.shape[2])
        return Window(rows, columns, u.expand(shape), v.expand(shape))

    def face(self, box: Box) -> Window:
        """A window in face coordinates, wide enough for every pose."""
        left, top, right, bottom = box
        reach_u, reach_v = max(-left, right) * MAX_TILT, max(abs(top), abs(bottom)) * MAX_TILT

        def stretched(low: float, high: float, lean: float) -> slice:
            a = (low - lean) * (MAX_SCALE if low < lean else MIN_SCALE)
            b = (high + lean) * (MAX_SCALE if high > -lean else MIN_SCALE)
            return pixel_range(a - MAX_SHIFT, b + MAX_SHIFT, self.size)

        rows, columns = stretched(top, bottom, reach_u), stretched(left, right, reach_v)
        n = self.look.number
        x = self.centres[None, None, columns] - n["shift_x"]
        y = self.centres[None, rows, None] - n["shift_y"]
        return Window(rows, columns, x * n["cos"] + y * n["sin"], y * n["cos"] - x * n["sin"])

    def paint(self, window: Window, colour: Tensor, alpha: Tensor, tone: Tensor | None = None) -> None:
        """Blend in a colour [N, 3, 1, 1], lit by `tone` [N, h, w], with opacity `alpha` [N, h, w].

        Where alpha is 1, nothing of what lies below remains, to the last bit.
        """
        below = self.rgb[:, :, window.rows, window.columns]
        below *= (1.0 - alpha)[:, None]
        below += colour * (alpha if tone is None else alpha * tone)[:, None]

    def shade(self, window: Window, factor: Tensor) -> None:
        """Multiply a window by `factor` [N, h, w]."""
        self.rgb[:, :, window.rows, window.columns] *= factor[:, None]

    def number(self, name: str) -> Tensor:
        return self.look.number[name]

    def colour(self, name: str) -> Tensor:
        return self.look.colour[name]
