"""Renders looks as photographs: layers painted from back to front, in chunks of subjects that stay in the cache."""

from collections.abc import Mapping

import torch
from torch import Tensor

from civae_core.synthetic.canvas import Canvas
from civae_core.synthetic.features import (
    draw_age,
    draw_beard,
    draw_brows,
    draw_ears,
    draw_eyes,
    draw_glasses,
    draw_mouth,
    draw_nose,
    draw_skin,
)
from civae_core.synthetic.look import Look, look_of
from civae_core.synthetic.surroundings import (
    draw_backdrop,
    draw_clothes,
    draw_hair_behind,
    draw_hair_in_front,
    draw_neck,
    hair_outline,
)

# Pixels rendered together. Fewer need more calls; more need memory and cache, and were measured to be no faster.
_CHUNK_PIXELS = 64 * 64 * 64


def render(noise_NK: Tensor, roots: Mapping[str, Tensor], levels: Mapping[str, Tensor], size: int) -> Tensor:
    """Render photographs, uint8 [N, 3, size, size]; a subject's photograph does not depend on its batch."""
    count = len(noise_NK)
    out = torch.empty(count, 3, size, size, dtype=torch.uint8, device=noise_NK.device)
    step = max(1, _CHUNK_PIXELS // (size * size))
    with torch.inference_mode():
        for first in range(0, count, step):
            rows = slice(first, first + step)
            look = look_of(
                noise_NK[rows],
                {name: value[rows] for name, value in roots.items()},
                {name: value[rows] for name, value in levels.items()},
            )
            out[rows] = expose(draw(look, size), look)
    return out


def draw(look: Look, size: int) -> Tensor:
    """The scene before the sensor: float32 RGB [N, 3, size, size], about in [0, 1] but not clamped."""
    canvas = Canvas(look, size)
    draw_backdrop(canvas)
    draw_clothes(canvas)
    hair = hair_outline(canvas)
    draw_hair_behind(canvas, hair)
    draw_neck(canvas)
    draw_ears(canvas)
    draw_skin(canvas)
    draw_age(canvas)
    draw_nose(canvas)
    draw_eyes(canvas)
    draw_beard(canvas)
    draw_mouth(canvas)
    draw_brows(canvas)
    draw_hair_in_front(canvas, hair)
    draw_glasses(canvas)
    return canvas.rgb


def expose(scene_N3HW: Tensor, look: Look) -> Tensor:
    """Add the sensor's grain and quantise to uint8 [N, 3, H, W].

    The grain is white noise, an integer hash of (subject, pixel): it is the same under do() and in any batch.
    """
    height, width = scene_N3HW.shape[-2:]
    key_N11 = (look.number["grain_key"] * 16_777_216.0).to(torch.int32)
    pixel_HW = torch.arange(height * width, dtype=torch.int32, device=key_N11.device).view(height, width)
    # int32 products wrap around, which scatters the bits.
    hashed = (pixel_HW + key_N11 * 40_503) * -1_640_531_535
    for shift, factor in ((15, -2_048_144_777), (13, 668_265_263)):
        hashed ^= hashed >> shift
        hashed *= factor
    hashed ^= hashed >> 9
    even_NHW = (hashed & 0xFFFFFF).float() * 2.0**-23 - 1.0
    grain_N1HW = (even_NHW * look.number["grain"])[:, None]
    return (scene_N3HW + grain_N1HW).mul_(255.0).add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)
