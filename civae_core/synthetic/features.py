"""The layers of the face: skin, ears, signs of age, nose, eyes, beard, mouth, brows, glasses."""

import torch
from torch import Tensor

from civae_core.synthetic.canvas import Canvas
from civae_core.synthetic.look import HEAD_V, SKULL_TOP
from civae_core.synthetic.shapes import (
    coverage,
    ellipse,
    rounded_box,
    segment,
    smoothstep,
    soft,
    triangle_wave,
)

_FACE_BOX = (-0.53, -0.75, 0.53, 0.68)


def draw_ears(canvas: Canvas) -> None:
    n = canvas.number
    window = canvas.face((-0.60, -0.16, 0.60, 0.20))
    du, dv = window.u.abs() - n("width"), window.v - 0.02
    tone = 0.86 - 0.30 * soft(ellipse(du, dv, n("ears") * 0.45, 0.05), 0.03)
    canvas.paint(
        window, canvas.colour("skin"), coverage(ellipse(du, dv, n("ears"), 0.11), canvas.pixel), tone
    )


def _head(canvas: Canvas, u: Tensor, v: Tensor) -> Tensor:
    """Squared radius relative to the head's outline: 1 on the outline, 0 in the centre."""
    n = canvas.number
    dv = v - HEAD_V
    low = dv.clamp(min=0.0) / (n("chin") - HEAD_V)
    low2 = low * low
    a = u / n("width") * (1.0 + n("taper") * low2)
    a2, b = a * a, dv.clamp(max=0.0) / (HEAD_V - SKULL_TOP)
    # Make the jaw squarer, as in a squircle; only within the unit square, outside of which the sign would flip.
    square = n("squareness") * a2.clamp(max=1.0) * low2.clamp(max=1.0)
    return a2 + b * b + low2 - square


def draw_skin(canvas: Canvas) -> None:
    """Draw the shaded head and the blush of the cheeks."""
    n = canvas.number
    window = canvas.face(_FACE_BOX)
    u, v = window.u, window.v
    radius2 = _head(canvas, u, v)
    distance = (radius2.sqrt() - 1.0) * n("width")
    tone = 1.03 - 0.20 * (radius2 - 0.35).clamp_(min=0.0) + 0.42 * n("light_x") * u - 0.10 * n("light_y") * v
    canvas.paint(window, canvas.colour("skin"), coverage(distance, canvas.pixel), tone)

    cheeks = canvas.face((-0.42, 0.00, 0.42, 0.36))
    flush = soft(ellipse(cheeks.u.abs() - 0.25, cheeks.v - 0.18, 0.05, 0.04), 0.12)
    canvas.paint(cheeks, canvas.colour("blush"), flush * 0.32)


def draw_age(canvas: Canvas) -> None:
    """Draw lines on the forehead, from nose to mouth, below the mouth, beside and under the eyes; none at level 0."""
    n = canvas.number
    level = n("wrinkles")

    forehead = canvas.face((-0.30, -0.50, 0.30, -0.22))
    u, v = forehead.u, forehead.v
    bend = v - 0.25 * u * u
    across = (1.0 - (u / 0.28).square_()).clamp_(min=0.0)
    lines = soft(bend + 0.44, 0.020) + soft(bend + 0.365, 0.022) + 0.9 * soft(bend + 0.29, 0.020)
    canvas.shade(forehead, 1.0 - 0.34 * level * lines * across)

    folds = canvas.face((-0.30, 0.08, 0.30, 0.56))
    u, v = folds.u.abs(), folds.v
    bow = u + 0.9 * (v - 0.25).square()
    foot = (n("mouth_width") + 0.050, n("mouth_v") - 0.005)
    fold = soft(segment(bow, v, (n("nose_width") + 0.030, n("nose_v") - 0.015), foot), 0.034)
    corner = n("mouth_width") + 0.015
    marionette = soft(segment(u, v, (corner, n("mouth_v") + 0.055), (corner - 0.005, 0.47)), 0.026)
    canvas.shade(folds, 1.0 - level * (0.30 * fold + 0.14 * marionette))

    eyes = canvas.face((-0.42, -0.20, 0.42, 0.16))
    u, v = eyes.u.abs() - n("eye_u"), eyes.v - n("eye_v")
    arc = v - n("eye_open") - 0.055 + 0.9 * u * u * 4.0
    bag = soft(arc, 0.030) * (1.0 - (u / 0.12).square_()).clamp_(min=0.0)
    corner = n("eye_width") + 0.035
    crow = soft(segment(u, v, (corner, -0.015), (corner + 0.07, -0.055)), 0.016)
    crow = crow + soft(segment(u, v, (corner, 0.005), (corner + 0.08, 0.005)), 0.016)
    crow = crow + soft(segment(u, v, (corner, 0.025), (corner + 0.07, 0.065)), 0.016)
    canvas.shade(eyes, 1.0 - level * (0.30 * bag + 0.30 * crow.clamp_(max=1.0)))


def draw_nose(canvas: Canvas) -> None:
    """Draw the nose: a bridge in half shadow, light on the tip, wings and nostrils."""
    n = canvas.number
    window = canvas.face((-0.14, -0.16, 0.14, 0.26))
    u, v = window.u, window.v
    width, tip = n("nose_width"), n("nose_v")
    lit, side = u * n("shadow_side"), u.abs()
    bridge = soft(segment(lit, v, (0.050, -0.07), (width * 0.70, tip - 0.04)), 0.050)
    wings = soft(segment(side, v, (width, tip - 0.04), (width * 0.85, tip + 0.015)), 0.022)
    under = soft(v - tip - 0.030 + 2.0 * side * side, 0.024) * (
        1.0 - (side / (width * 1.15)).square_()
    ).clamp_(min=0.0)
    nostrils = soft(ellipse(side - width * 0.5, v - tip - 0.018, 0.012, 0.007), 0.018)
    glow = soft(ellipse(u, v - tip + 0.03, 0.02, 0.03), 0.04)
    canvas.shade(window, 1.0 - 0.20 * bridge - 0.20 * wings - 0.26 * under - 0.36 * nostrils + 0.09 * glow)


def draw_eyes(canvas: Canvas) -> None:
    """Draw sockets, almond-shaped whites, irises, pupils, catch-lights, lids and lashes."""
    n = canvas.number
    window = canvas.face((-0.36, -0.19, 0.36, 0.08))
    u = window.u.abs() - n("eye_u")
    v = window.v - n("eye_v") + n("eye_slant") * u
    span = (1.0 - (u / n("eye_width")).square_()).clamp_(min=0.0)
    top, bottom = -n("eye_open") * span, 0.72 * n("eye_open") * span
    lid = (v - top).abs()
    socket = soft(ellipse(u, v + 0.02, 0.10, 0.06), 0.07)
    crease = soft(v - top + 0.035, 0.014) * span
    canvas.shade(window, 1.0 - 0.10 * socket - 0.22 * crease)
    inside = coverage(torch.maximum(top - v, v - bottom), canvas.pixel) * (span > 0)
    shadow = 0.90 - 0.22 * soft(v - top, 0.03)
    canvas.paint(window, canvas.colour("white"), inside, shadow)
    # Both eyes look in the same direction, so undo the mirroring of u.
    sign = torch.sign(window.u)
    across = u * sign - n("gaze")
    radius = (across * across + v * v).sqrt_()
    iris = coverage(radius - n("iris"), canvas.pixel) * inside
    rim = smoothstep(radius, 0.5 * n("iris"), n("iris"))
    canvas.paint(window, canvas.colour("eyes"), iris, 1.15 - 0.5 * rim)
    canvas.paint(window, canvas.colour("dark"), coverage(radius - 0.44 * n("iris"), canvas.pixel) * inside)
    glint = coverage(ellipse(across + 0.016 * n("shadow_side"), v + 0.018, 0.012, 0.012), canvas.pixel)
    canvas.paint(window, canvas.colour("white"), glint * inside)
    lash = coverage(lid - n("lashes") * (0.35 + 0.65 * span), canvas.pixel) * (
        u.abs() < n("eye_width") * 1.08
    )
    canvas.paint(window, canvas.colour("dark"), lash * 0.85)


def draw_brows(canvas: Canvas) -> None:
    n = canvas.number
    window = canvas.face((-0.36, -0.30, 0.36, -0.08))
    u, v = window.u.abs() - n("eye_u"), window.v - n("brow_v")
    along = (u + 0.015) / 0.125
    span = (1.0 - along * along).clamp_(min=0.0)
    centre = -n("brow_arch") * (1.0 - (along - 0.08).square())
    distance = (v - centre).abs() - n("brow_thickness") * span * (1.05 - 0.30 * along)
    canvas.paint(window, canvas.colour("brow"), coverage(distance, canvas.pixel) * (span > 0) * 0.88)


def draw_mouth(canvas: Canvas) -> None:
    """Draw lips along a curve whose corners rise with a smile, opening over teeth."""
    n = canvas.number
    window = canvas.face((-0.26, 0.22, 0.26, 0.54))
    u = window.u
    along2 = (u / n("mouth_width")).square_()
    span = (1.0 - along2).clamp(min=0.0)
    v = window.v - n("mouth_v") + n("smile") * along2.clamp(max=1.3)
    opened = n("mouth_open") * span
    bow = n("lips") * span * (0.80 - 0.30 * soft(u, 0.03))
    lower = opened + n("lips") * span * 1.15
    within = span > 0
    under = soft(v - lower - 0.035, 0.035) * span
    canvas.shade(window, 1.0 - 0.16 * under)
    tone = 1.0 - 0.16 * (v < 0.5 * opened) + 0.14 * soft(v - lower * 0.75, 0.02)
    outside = torch.maximum(-bow - v, v - lower)
    canvas.paint(window, canvas.colour("lips"), coverage(outside, canvas.pixel) * within, tone)
    gap = coverage((v - 0.5 * opened).abs() - 0.5 * opened - 0.006, canvas.pixel) * within
    canvas.paint(window, canvas.colour("mouth"), gap * 0.9)
    teeth = coverage(torch.maximum(-v, v - 0.72 * opened), canvas.pixel) * (opened > 0.012)
    canvas.paint(window, canvas.colour("white"), teeth * within, 0.96 - 0.12 * along2)


def draw_beard(canvas: Canvas) -> None:
    """Draw a full beard or a goatee, textured; none at level 0."""
    n = canvas.number
    window = canvas.face((-0.53, -0.02, 0.53, 0.74))
    u, v = window.u, window.v
    side = u.abs()
    radius2 = _head(canvas, u, v - n("beard_length") * smoothstep(v, 0.30, 0.60))
    jaw = (radius2.sqrt_() - 1.0) * n("width")
    ratio = side / n("width")
    # The upper edge runs under the nose, down beside the mouth, and up along the cheek to the ear.
    edge = 0.335 - 0.10 * soft(side, 0.24) - 0.30 * ratio * ratio * ratio
    full = torch.maximum(jaw, edge - v)
    goatee = torch.maximum(torch.maximum(jaw, ellipse(u, v - 0.43, 0.20, 0.205)), 0.235 - v)
    distance = full + (goatee - full) * n("beard_goatee")
    hairs = triangle_wave(u * (25.0 - 13.0 * v) + n("strands")) + triangle_wave(v * 17.0 + 9.0 * side)
    tone = 0.95 + 0.06 * hairs + 0.25 * n("light_x") * u
    alpha = coverage(distance / 1.5, canvas.pixel) * (n("beard") * 0.92)
    canvas.paint(window, canvas.colour("beard"), alpha, tone)


def draw_glasses(canvas: Canvas) -> None:
    """Draw frames, bridge and arms, with a faint sheen on the glass; none at level 0."""
    n = canvas.number
    window = canvas.face((-0.52, -0.20, 0.52, 0.12))
    side, v = window.u.abs(), window.v - n("eye_v") - 0.012
    u = side - n("eye_u")
    rim = rounded_box(u, v, n("frame_size"), 0.098, n("frame_round"))
    bridge = segment(side, v, (0.0, -0.035), (n("eye_u") - n("frame_size"), -0.02))
    arm = segment(side, v, (n("eye_u") + n("frame_size"), -0.04), (n("opening_width"), -0.05))
    distance = torch.minimum(torch.minimum(rim.abs(), bridge), arm) - 0.012
    canvas.paint(window, canvas.colour("white"), coverage(rim, canvas.pixel) * (0.08 * n("glasses")))
    canvas.paint(window, canvas.colour("frame"), coverage(distance, canvas.pixel) * n("glasses"))
