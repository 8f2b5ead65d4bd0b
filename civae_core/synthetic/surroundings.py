"""Layers around the face: backdrop, clothes, neck, and the hair behind and in front."""

from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.synthetic.canvas import Canvas, Window, shaded
from civae_core.synthetic.shapes import coverage, dome, ellipse, smoothstep, soft, triangle_wave

_HAIR_BOX = (-0.80, -0.88, 0.80, 1.05)
# Top of the skull, and the height at which its dome begins.
SKULL_TOP = -0.70
DOME_V = -0.16


def draw_backdrop(canvas: Canvas) -> None:
    """A two-colour gradient over the whole picture."""
    n = canvas.number
    x, y = canvas.centres[None, None, :], canvas.centres[None, :, None]
    blend = (0.5 + 0.45 * n("backdrop_x") * x) + 0.45 * n("backdrop_y") * y
    first, second = canvas.colour("backdrop"), canvas.colour("backdrop_2")
    torch.add(first, (second - first) * blend.clamp_(0.0, 1.0)[:, None], out=canvas.rgb)


def draw_clothes(canvas: Canvas) -> None:
    """Shoulders under a collar."""
    n = canvas.number
    window = canvas.body((-1.1, 0.55, 1.1, 1.1))
    distance = ellipse(window.u, window.v - 1.12, n("shoulders"), 0.45)
    tone = 1.08 - 0.35 * window.u * window.u + 0.12 * n("light_x") * window.u
    canvas.paint(window, shaded(canvas.colour("clothes"), tone), coverage(distance, canvas.image_pixel))


def draw_neck(canvas: Canvas) -> None:
    """Neck and neckline, in the shadow of the chin."""
    n = canvas.number
    window = canvas.body((-0.40, 0.25, 0.40, 1.1))
    u, v = window.u, window.v
    side = u.abs()
    # Straight sides that flare into the shoulders and close in a round neckline.
    flare = (v - 0.62).clamp_(min=0.0)
    distance = torch.maximum(side - n("neck") - 0.25 * flare, v - (0.72 + n("neckline")) + 1.6 * side * side)
    tone = 0.62 + 0.30 * smoothstep(v - 0.25 * side, 0.52, 0.80) + 0.10 * n("light_x") * u
    canvas.paint(window, shaded(canvas.colour("skin"), tone), coverage(distance, canvas.image_pixel))


@dataclass(frozen=True)
class Hair:
    """The window that hair can reach, the distance to its outline, and its tone."""

    window: Window
    outline: Tensor
    tone: Tensor


def hair_outline(canvas: Canvas) -> Hair:
    """The silhouette of the hair: a dome over the skull whose sides fall to the hair's length."""
    n = canvas.number
    window = canvas.face(_HAIR_BOX)
    u, v = window.u, window.v
    below = (v - DOME_V).clamp(min=0.0)
    half_width = n("hair_width") + n("hair_flare") * below
    strands = triangle_wave(u * 9.0 + n("strands"))
    distance = dome(u, v - DOME_V, half_width, DOME_V - SKULL_TOP + n("hair_top"))
    # Ends hang lower in the middle and are a little ragged.
    ends = v - n("hair_length") + 0.5 * u * u + 0.02 * n("long") * strands
    sheen = soft(v + 0.50 - 0.25 * u * u + 0.12 * n("light_x") * u, 0.16)
    tone = 0.92 + 0.10 * strands + 0.28 * sheen + 0.22 * n("light_x") * u - 0.12 * below
    return Hair(window, torch.maximum(distance, ends), tone)


def draw_hair_behind(canvas: Canvas, hair: Hair) -> None:
    colour = shaded(canvas.colour("hair"), hair.tone * 0.62)
    canvas.paint(hair.window, colour, coverage(hair.outline, canvas.pixel))


def draw_hair_in_front(canvas: Canvas, hair: Hair) -> None:
    """Everything inside the outline but outside the opening for the face, which grows as the hairline recedes."""
    n = canvas.number
    u, v = hair.window.u, hair.window.v
    opening = dome(u - n("parting"), v - DOME_V, n("opening_width"), DOME_V - n("hairline"))
    # Without this the parting would uncover more than the face at one side.
    walls = u.abs() - n("opening_width")
    temples = ellipse(
        u.abs() - 0.30, v + 0.40 + 0.06 * n("receding"), n("temples") + 0.02, n("temples") + 0.03
    )
    uncovered = torch.minimum(torch.maximum(opening, walls), torch.maximum(temples, walls))
    alpha = coverage(torch.maximum(hair.outline, -uncovered), canvas.pixel)
    # A soft shadow where hair meets skin is what makes it lie on the head.
    canvas.paint(hair.window, shaded(canvas.colour("hair"), hair.tone), alpha)
