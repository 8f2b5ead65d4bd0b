"""Signed distances and soft strokes, on planes [N, h, w] with per-subject parameters [N, 1, 1].

Distances are negative inside, in the units of the coordinates. Neither this module nor the renderer uses operations
whose rounding may depend on the position in a tensor or on its length (exp, sin, fused multiply-adds), so an image
is the same to the bit in any batch.
"""

import torch
from torch import Tensor

Number = Tensor | float


def coverage(distance: Tensor, pixel: Number) -> Tensor:
    """The share of a pixel that lies inside, in [0, 1]: a ramp of one pixel across the edge."""
    return (0.5 - distance / pixel).clamp_(0.0, 1.0)


def ellipse(u: Tensor, v: Tensor, radius_u: Number, radius_v: Number) -> Tensor:
    """Distance to an ellipse at the origin, to first order: exact on the edge, within a few percent near it."""
    a, b = u / radius_u, v / radius_v
    level = (a * a + b * b).sqrt_()
    slope = (a / radius_u).square_().add_((b / radius_v).square_()).sqrt_().clamp_(min=1e-6)
    return level * (level - 1.0) / slope


def dome(u: Tensor, v: Tensor, half_width: Number, height: Number) -> Tensor:
    """Distance to an arch: a half ellipse above v = 0 (v < 0), and straight, endless walls below."""
    a, b = u / half_width, v.clamp(max=0.0) / height
    return ((a * a + b * b).sqrt_() - 1.0) * half_width


def segment(u: Tensor, v: Tensor, start: tuple[Number, Number], end: tuple[Number, Number]) -> Tensor:
    """Distance to a line segment."""
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = u - start[0], v - start[1]
    along = ((pu * du + pv * dv) / (du * du + dv * dv)).clamp_(0.0, 1.0)
    return (pu - along * du).square_().add_((pv - along * dv).square_()).sqrt_()


def rounded_box(u: Tensor, v: Tensor, half_u: Number, half_v: Number, radius: Number) -> Tensor:
    """Distance to an axis-aligned box at the origin with rounded corners."""
    a, b = u.abs() - (half_u - radius), v.abs() - (half_v - radius)
    outside = (a.clamp(min=0.0).square_() + b.clamp(min=0.0).square_()).sqrt_()
    return outside + torch.maximum(a, b).clamp_(max=0.0) - radius


def smooth_union(first: Tensor, second: Tensor, blend: Number) -> Tensor:
    """Distance to the union of two shapes, with the join rounded over `blend`."""
    near = (1.0 - (first - second).abs_() / blend).clamp_(min=0.0)
    return torch.minimum(first, second) - (0.25 * blend) * near * near


def soft(distance: Tensor, width: Number) -> Tensor:
    """A bump: 1 at distance 0, falling smoothly to 0 at ±width."""
    return (1.0 - (distance / width).square_()).clamp_(min=0.0).square_()


def smoothstep(x: Tensor, low: Number, high: Number) -> Tensor:
    """0 below `low`, 1 above `high`, and a smooth cubic in between."""
    t = ((x - low) / (high - low)).clamp_(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def triangle_wave(x: Tensor) -> Tensor:
    """A triangle wave of period 1 between −1 and 1."""
    return (x - x.floor()).sub_(0.5).abs_().mul_(4.0).sub_(1.0)
