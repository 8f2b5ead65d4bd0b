"""Portraits in CelebA's format: 178 × 218 pixels, with the face placed as in CelebA's aligned images."""

import torch
from torch import Tensor

from civae_core.celeba import HEIGHT, WIDTH
from civae_core.synthetic.canvas import Canvas
from civae_core.synthetic.look import Look, look_of
from civae_core.synthetic.process import Subjects
from civae_core.synthetic.renderer import draw, expose
from civae_core.synthetic.surroundings import draw_backdrop

# In a square of this side the eyes are 40 pixels apart on average, as in CelebA. With the square at the foot of the
# portrait they are at row 113; CelebA's are at 111.
_SQUARE = 200
_CHUNK = 8  # portraits rendered together, about as many pixels as `render` takes at once


def render_portraits(subjects: Subjects) -> Tensor:
    """Render photographs, uint8 [N, 3, 218, 178]; a subject's photograph does not depend on its batch.

    The scene is that of `FaceProcess.render` at 200 pixels, without 11 columns on either side and with 18 more rows
    of backdrop at the top.
    """
    out = torch.empty(len(subjects), 3, HEIGHT, WIDTH, dtype=torch.uint8, device=subjects.noise_NK.device)
    with torch.inference_mode():
        for first in range(0, len(subjects), _CHUNK):
            rows = slice(first, first + _CHUNK)
            some = subjects[rows]
            look = look_of(some.noise_NK, some.roots, some.levels)
            out[rows] = expose(_scene(look), look)
    return out


def _scene(look: Look) -> Tensor:
    """The scene before the sensor: float32 RGB [N, 3, 218, 178]."""
    side = (_SQUARE - WIDTH) // 2
    behind = Canvas(look, _SQUARE)
    draw_backdrop(behind)
    above_N31S = behind.rgb[:, :, :1].expand(-1, -1, HEIGHT - _SQUARE, -1)
    return torch.cat([above_N31S, draw(look, _SQUARE)], dim=2)[:, :, :, side : side + WIDTH]
