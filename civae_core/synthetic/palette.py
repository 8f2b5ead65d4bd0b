"""Colours, float32 RGB [N, 3] in [0,1], as piecewise linear ramps of per-subject numbers [N]."""

import torch
from torch import Tensor

# From pale to dark.
SKIN = ((0.96, 0.83, 0.75), (0.91, 0.73, 0.60), (0.80, 0.58, 0.43), (0.60, 0.41, 0.29), (0.38, 0.25, 0.18))
# From near black to auburn.
HAIR = ((0.09, 0.07, 0.07), (0.17, 0.11, 0.08), (0.27, 0.17, 0.11), (0.38, 0.24, 0.14), (0.43, 0.21, 0.11))
BLOND = ((0.74, 0.56, 0.32), (0.86, 0.70, 0.43), (0.93, 0.82, 0.58))
GRAY = ((0.66, 0.66, 0.67), (0.80, 0.80, 0.80), (0.92, 0.91, 0.89))
BROWN_EYES = ((0.20, 0.11, 0.06), (0.36, 0.21, 0.10), (0.40, 0.34, 0.14), (0.26, 0.38, 0.20))
BLUE_EYES = ((0.20, 0.45, 0.78), (0.35, 0.60, 0.86), (0.45, 0.68, 0.78))
LIPS = ((0.72, 0.38, 0.36), (0.80, 0.28, 0.32), (0.66, 0.24, 0.30))
FRAMES = ((0.06, 0.06, 0.08), (0.30, 0.15, 0.08), (0.45, 0.45, 0.50), (0.12, 0.14, 0.32))
# Around the colour wheel; first and last colours are equal.
WHEEL = (
    (0.86, 0.36, 0.32),
    (0.88, 0.66, 0.30),
    (0.50, 0.68, 0.36),
    (0.28, 0.64, 0.62),
    (0.30, 0.46, 0.78),
    (0.60, 0.40, 0.72),
    (0.86, 0.36, 0.32),
)


def ramp(stops: tuple[tuple[float, float, float], ...], at_N: Tensor) -> Tensor:
    """The colour of a ramp at `at_N` (0 is the first stop, 1 the last; clamped), float32 [N, 3]."""
    table = torch.tensor(stops, dtype=at_N.dtype, device=at_N.device)
    x = at_N.clamp(0.0, 1.0) * (len(stops) - 1)
    # Clamped linear steps rather than a gather: the same bits on any device and in any batch.
    colour = table[0].expand(len(at_N), 3)
    for stop in range(1, len(stops)):
        colour = mix(colour, table[stop], (x - (stop - 1)).clamp(0.0, 1.0))
    return colour


def mix(first_N3: Tensor, second_N3: Tensor, share_N: Tensor) -> Tensor:
    """Interpolate linearly from `first` (share 0) to `second` (share 1); not clamped."""
    return first_N3 + (second_N3 - first_N3) * share_N[:, None]


def muted(hue_N: Tensor, value_N: Tensor, saturation_N: Tensor) -> Tensor:
    """A colour of the wheel, desaturated to `saturation_N` and scaled to brightness `value_N`."""
    gray = torch.full((len(hue_N), 3), 0.6, dtype=hue_N.dtype, device=hue_N.device)
    return (mix(gray, ramp(WHEEL, hue_N), saturation_N) * (value_N[:, None] / 0.65)).clamp(0.0, 1.0)
