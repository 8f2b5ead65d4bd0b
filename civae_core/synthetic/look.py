"""The look of a subject: geometry and colours computed from roots, consequences and noise.

Units: face coordinates (u right, v down, origin between the eyes and the mouth, 1 is half an image at scale 1). All
numbers are [N, 1, 1] and all colours [N, 3, 1, 1], so that they broadcast over planes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.synthetic import palette
from civae_core.synthetic.noise import column


@dataclass(frozen=True)
class Look:
    """Numbers [N, 1, 1] and colours [N, 3, 1, 1] of N subjects by name; see `look_of` for their meaning."""

    number: Mapping[str, Tensor]
    colour: Mapping[str, Tensor]


# Heights of the head's middle and of the top of the skull.
HEAD_V, SKULL_TOP = -0.04, -0.70

# Limits of the pose, from which the windows of pixels are sized.
MAX_SHIFT = 0.05
MAX_TILT = 0.13
MIN_SCALE, MAX_SCALE = 1.03, 1.14


def look_of(noise_NK: Tensor, roots: Mapping[str, Tensor], levels: Mapping[str, Tensor]) -> Look:
    """Geometry and colours of N subjects; like `shapes`, uses no operation whose rounding depends on the batch."""

    def unit(source: str) -> Tensor:
        return column(noise_NK, source)

    def around(source: str, centre: float | Tensor, spread: float) -> Tensor:
        return centre + spread * (2.0 * unit(source) - 1.0)

    male = roots["Male"].clamp(0.0, 1.0)
    smile = roots["Smiling"].clamp(-0.5, 1.5)
    gray = levels["Gray_Hair"]

    def by_sex(woman: float | Tensor, man: float | Tensor) -> Tensor:
        return woman + (man - woman) * male

    # Tangent of the tilt; cos = 1/sqrt(1 + tan²) avoids functions whose rounding depends on the batch.
    tilt = around("tilt", 0.0, MAX_TILT)
    cos = 1.0 / (1.0 + tilt * tilt).sqrt()
    scale = MIN_SCALE + (MAX_SCALE - MIN_SCALE) * unit("scale")
    width = around("face_width", by_sex(0.425, 0.450), 0.028)
    man_short = unit("hair_length_man")
    length_man = torch.where(man_short < 0.9, -0.02 + 0.10 * man_short, 0.35 + 2.0 * (man_short - 0.9))
    length = by_sex(0.22 + 0.75 * unit("hair_length_woman"), length_man)
    long = ((length - 0.10) / 0.25).clamp(0.0, 1.0)
    volume = around("hair_volume", 0.075 + 0.045 * long, 0.025)
    fringe = torch.where(unit("fringe") < 0.3, 0.12, 0.0) * (1.0 - male)
    receding = levels["Receding_Hairline"]
    wrinkles = levels["Wrinkles"]
    grin = (0.35 + 0.65 * unit("grin")) * smile.clamp(min=0.0)
    number = {
        # pose: u = (cos·x + sin·y)/scale …
        "cos": cos / scale,
        "sin": tilt * cos / scale,
        "scale": scale,
        "shift_x": around("shift_x", 0.0, MAX_SHIFT),
        "shift_y": around("shift_y", 0.0, MAX_SHIFT),
        # light
        "light_x": around("light_x", 0.0, 1.0),
        "light_y": around("light_y", 0.4, 0.3),
        "shadow_side": torch.where(unit("light_x") < 0.5, 1.0, -1.0),
        "grain": 0.006 + 0.014 * unit("grain"),
        "grain_key": unit("grain_key"),
        # backdrop and body
        "backdrop_x": around("backdrop_x", 0.0, 1.0),
        "backdrop_y": around("backdrop_y", 0.0, 1.0),
        "shoulders": around("shoulders", by_sex(0.74, 0.88), 0.06),
        "neck": around("neck", by_sex(0.185, 0.260), 0.015),
        "neckline": around("neckline", by_sex(0.30, 0.20), 0.09),
        # head
        "width": width,
        "chin": around("face_height", by_sex(0.585, 0.615), 0.03),
        "taper": by_sex(0.42, 0.26) - 0.08 * unit("jaw"),
        "squareness": around("jaw", by_sex(0.05, 0.45), 0.05),
        "ears": around("ears", 0.075, 0.015),
        # eyes and brows
        "eye_u": around("eye_distance", 0.185, 0.014),
        "eye_v": around("eye_height", -0.05, 0.015),
        "eye_width": around("eye_width", 0.092, 0.007),
        "eye_open": around("eye_open", by_sex(0.056, 0.050), 0.006),
        "eye_slant": around("eye_slant", 0.05, 0.10),
        "gaze": around("gaze", 0.0, 0.018),
        "iris": around("iris", 0.046, 0.003),
        "lashes": by_sex(0.018, 0.012),
        "brow_v": around("brow_height", by_sex(-0.195, -0.180), 0.015),
        "brow_thickness": around("brow_thickness", by_sex(0.016, 0.027), 0.004),
        "brow_arch": around("brow_arch", by_sex(0.050, 0.026), 0.014),
        # nose and mouth
        "nose_v": around("nose_length", 0.165, 0.025),
        "nose_width": around("nose_width", by_sex(0.068, 0.082), 0.010),
        "mouth_v": around("mouth_height", 0.345, 0.015),
        "mouth_width": around("mouth_width", 0.150, 0.015) + 0.035 * smile,
        "smile": 0.006 + 0.056 * smile,
        "mouth_open": 0.075 * grin,
        "lips": around("lips", by_sex(0.040, 0.029), 0.006),
        # hair
        "hair_width": width + volume,
        "hair_top": volume,
        "hair_flare": 0.10 * long * unit("hair_volume"),
        "hair_length": length,
        "opening_width": width * (0.97 - 0.13 * long),
        "hairline": around("hairline", -0.46, 0.03) + fringe - 0.19 * receding,
        "parting": around("parting", 0.0, 0.10) * (1.0 - (fringe > 0).to(male.dtype)),
        "temples": 0.25 * receding - 0.06,
        "receding": receding,
        "strands": unit("strands"),
        "long": long,
        # beard
        "beard": levels["Beard"],
        "beard_goatee": torch.where(unit("beard_extent") < 0.25, 1.0, 0.0),
        "beard_length": 0.01 + 0.06 * unit("beard_length"),
        # age
        "wrinkles": wrinkles,
        # glasses
        "glasses": roots["Eyeglasses"].clamp(0.0, 1.0),
        "frame_round": around("frame_shape", 0.065, 0.035),
        "frame_size": around("frame_size", 0.122, 0.010),
    }

    skin = palette.ramp(palette.SKIN, roots["Skin_Tone"])
    skin = skin * _tint(around("skin_hue", 0.0, 0.03))
    hair = palette.mix(
        palette.ramp(palette.HAIR, unit("hair_colour")),
        palette.ramp(palette.BLOND, unit("hair_colour")),
        roots["Blond_Hair"].clamp(0.0, 1.0),
    )
    grayed = palette.ramp(palette.GRAY, unit("gray_tone"))
    hair_now = palette.mix(hair, grayed, gray)
    brow = palette.mix(hair * 0.62, skin * 0.45, torch.full_like(male, 0.25))
    bare_lips = skin * _rgb(skin, (0.86, 0.58, 0.56))
    made_up = palette.ramp(palette.LIPS, unit("lip_colour"))
    lips = palette.mix(bare_lips, made_up, by_sex(0.10 + 0.65 * unit("lip_colour"), 0.08))
    eyes = palette.mix(
        palette.ramp(palette.BROWN_EYES, unit("eye_colour")),
        palette.ramp(palette.BLUE_EYES, unit("eye_colour")),
        roots["Blue_Eyes"].clamp(0.0, 1.0),
    )
    faded = 0.5 * unit("backdrop_saturation")
    backdrop = palette.muted(unit("backdrop_hue"), 0.30 + 0.55 * unit("backdrop_value"), faded)
    backdrop_2 = palette.muted(unit("backdrop_hue_2"), 0.25 + 0.60 * unit("backdrop_value_2"), faded)
    clothes = palette.muted(
        unit("clothes_hue"), 0.12 + 0.75 * unit("clothes_value"), unit("clothes_saturation")
    )
    colour = {
        "skin": skin,
        "blush": skin * _rgb(skin, (1.0, 0.72, 0.70)),
        "hair": hair_now,
        "beard": palette.mix(hair * 0.8, grayed, gray),
        "brow": palette.mix(brow, grayed * 0.8, 0.55 * gray),
        "lips": lips,
        "eyes": eyes,
        "backdrop": backdrop,
        "backdrop_2": backdrop_2,
        "clothes": clothes,
        "white": _rgb(skin, (0.97, 0.96, 0.94)).expand_as(skin),
        "dark": _rgb(skin, (0.06, 0.04, 0.04)).expand_as(skin),
        "mouth": _rgb(skin, (0.26, 0.07, 0.08)).expand_as(skin),
        "frame": palette.ramp(palette.FRAMES, unit("frame_colour")),
    }
    exposure = around("exposure", 1.0, 0.10)[:, None] * _tint(around("warmth", 0.0, 0.04))
    return Look(
        number={name: value[:, None, None] for name, value in number.items()},
        colour={name: (value * exposure)[:, :, None, None] for name, value in colour.items()},
    )


def _tint(warmth_N: Tensor) -> Tensor:
    """Factors [N, 3] that shift a colour towards red (positive) or blue."""
    return torch.stack([1.0 + warmth_N, torch.ones_like(warmth_N), 1.0 - warmth_N], dim=1)


def _rgb(like: Tensor, values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)
