"""The layers around the face: backdrop, clothes, neck, and the hair behind and in front of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.synthetic.canvas import Canvas, Window
from civae_core.synthetic.look import HEAD_V, SKULL_TOP
from civae_core.synthetic.shapes import coverage, dome, ellipse, smooth_union, smoothstep, soft, triangle_wave

_HAIR_BOX = (-0.80, -0.88, 0.80, 1.05)
# Height above which the hair is a dome.
_DOME_V = -0.16


def draw_backdrop(canvas: Canvas) -> None:
    """Draw a gradient of two colours over the whole image."""
    n = canvas.number
    x, y = canvas.centres[None, None, :], canvas.centres[None, :, None]
    blend = (0.5 + 0.45 * n("backdrop_x") * x) + 0.45 * n("backdrop_y") * y
    first, second = canvas.colour("backdrop"), canvas.colour("backdrop_2")
    torch.add(first, (second - first) * blend.clamp_(0.0, 1.0)[:, None], out=canvas.rgb)


def draw_clothes(canvas: Canvas) -> None:
    """Draw the clothed shoulders."""
    n = canvas.number
    window = canvas.body((-1.1, 0.55, 1.1, 1.1))
    distance = ellipse(window.u, window.v - 1.12, n("shoulders"), 0.45)
    tone = 1.08 - 0.35 * window.u * window.u + 0.12 * n("light_x") * window.u
    canvas.paint(window, canvas.colour("clothes"), coverage(distance, canvas.image_pixel), tone)


def draw_neck(canvas: Canvas) -> None:
    """Draw neck and neckline, in the shadow of the chin."""
    n = canvas.number
    window = canvas.body((-0.40, 0.25, 0.40, 1.1))
    u, v = window.u, window.v
    side = u.abs()
    # The sides are straight, flare into the shoulders and end in a round neckline.
    flare = (v - 0.62).clamp_(min=0.0)
    end = v - (0.72 + n("neckline")) + 1.6 * side * side
    # The upper end is hidden behind the face.
    distance = torch.maximum(torch.maximum(side - n("neck") - 0.25 * flare, end), 0.30 - v)
    tone = 0.62 + 0.30 * smoothstep(v - 0.25 * side, 0.52, 0.80) + 0.10 * n("light_x") * u
    canvas.paint(window, canvas.colour("skin"), coverage(distance, canvas.image_pixel), tone)


@dataclass(frozen=True)
class Hair:
    """The window that hair can reach, the distances to its ends and to its outline, and its tone."""

    window: Window
    ends: Tensor
    outline: Tensor
    tone: Tensor


def hair_outline(canvas: Canvas) -> Hair:
    """The silhouette of the hair: a dome over the skull whose sides fall to the hair's length."""
    n = canvas.number
    window = canvas.face(_HAIR_BOX)
    u, v = window.u, window.v
    below = (v - _DOME_V).clamp(min=0.0)
    half_width = n("hair_width") + n("hair_flare") * below
    flow = u * (1.0 - 0.4 * v)
    strands = 0.6 * triangle_wave(flow * 11.0 + n("strands")) + 0.4 * triangle_wave(flow * 23.0)
    distance = dome(u, v - _DOME_V, half_width, _DOME_V - SKULL_TOP + n("hair_top"))
    # The ends hang lower in the middle and are slightly ragged.
    ends = v - n("hair_length") + 0.6 * u * u + 0.010 * n("long") * strands
    outline = torch.maximum(distance, ends)
    sheen = soft(v + 0.50 - 0.25 * u * u + 0.12 * n("light_x") * u, 0.16)
    rim = soft(outline, 0.12)
    tone = 0.96 + 0.07 * strands + 0.22 * sheen + 0.22 * n("light_x") * u - 0.10 * below - 0.20 * rim
    return Hair(window, ends, outline, tone)


def draw_hair_behind(canvas: Canvas, hair: Hair) -> None:
    """Draw the far side of the hair, darker, and one pixel smaller than the near side so that it leaves no rim."""
    canvas.paint(
        hair.window,
        canvas.colour("hair"),
        coverage(hair.outline + canvas.pixel, canvas.pixel),
        hair.tone * 0.62,
    )


def draw_hair_in_front(canvas: Canvas, hair: Hair) -> None:
    """Draw the hair inside the outline but outside the face's opening, which grows as the hairline recedes."""
    n = canvas.number
    u, v = hair.window.u, hair.window.v
    opening = dome(u - n("parting"), v - _DOME_V, n("opening_width"), _DOME_V - n("hairline"))
    du, dv = u.abs() - 0.27, v + 0.38 + 0.10 * n("receding")
    temples = (du * du + dv * dv).sqrt_() - n("temples")
    # Neither the parting nor bare temples may uncover more than the skull.
    walls = dome(u, v - HEAD_V, n("opening_width"), HEAD_V - SKULL_TOP)
    uncovered = torch.maximum(smooth_union(opening, temples, 0.10), walls)
    # A soft shadow where hair meets skin makes the hair lie on the head.
    near = soft(uncovered, 0.075) * (1.0 - smoothstep(hair.ends, -0.10, 0.0))
    near = near * coverage(hair.outline, canvas.pixel)
    canvas.shade(hair.window, 1.0 - 0.22 * near)
    alpha = coverage(torch.maximum(hair.outline, -uncovered), canvas.pixel)
    canvas.paint(hair.window, canvas.colour("hair"), alpha, hair.tone)
