"""Exogenous noise, counter-based: block b of a stream depends only on (seed, stream, b).

A subject's noise is a row of uniforms in [0,1) with one column per named source; it contains everything random about
a face. Rows are drawn in blocks of `BLOCK` subjects, each block from its own generator, so subject i is the same in
any batch.
"""

import torch
from torch import Tensor

BLOCK = 256

SOURCES: tuple[str, ...] = (
    # who was photographed, and how old
    *("male", "smiling", "eyeglasses", "blond_hair", "blue_eyes", "skin_group", "skin_tone", "young"),
    # how the person responds to the causes
    *("grays", "gray_tone", "recedes", "wrinkles", "beard", "beard_density", "beard_extent", "beard_length"),
    *("hair_length_woman", "hair_length_man"),
    # the photograph
    *(
        "shift_x",
        "shift_y",
        "tilt",
        "scale",
        "light_x",
        "light_y",
        "exposure",
        "warmth",
        "grain",
        "grain_key",
    ),
    *("backdrop_hue", "backdrop_value", "backdrop_hue_2", "backdrop_value_2", "backdrop_x", "backdrop_y"),
    "backdrop_saturation",
    *("clothes_hue", "clothes_value", "clothes_saturation", "neckline"),
    # the person's own shape and colours
    *("face_width", "face_height", "jaw", "ears", "neck", "shoulders"),
    *("eye_distance", "eye_height", "eye_width", "eye_open", "eye_slant", "gaze", "eye_colour", "iris"),
    *("brow_height", "brow_thickness", "brow_arch", "nose_length", "nose_width"),
    *("mouth_height", "mouth_width", "lips", "grin", "lip_colour"),
    # "blush" is read no more; without its column, the same seeds would give other faces
    *("skin_hue", "blush", "hair_colour", "hair_volume", "hairline", "fringe", "parting", "strands"),
    *("frame_shape", "frame_size", "frame_colour"),
)

_COLUMN = {name: column for column, name in enumerate(SOURCES)}


def _mix(value: int) -> int:
    """A bijection of 32-bit integers that scatters neighbouring values (the finaliser of MurmurHash3)."""
    value &= 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ (value >> 16)


def _block(seed: int, stream: int, block: int) -> Tensor:
    # torch's CPU generator keeps 32 bits of its seed. The block is added inside the bijection, so that no two blocks
    # of a stream coincide.
    key = _mix(_mix(seed) ^ _mix((seed >> 32) + 1) ^ _mix(stream + 0x9E3779B9))
    generator = torch.Generator().manual_seed(_mix(key + block))
    return torch.rand(len(SOURCES), BLOCK, generator=generator).T


def draw(seed: int, stream: int, start: int, count: int) -> Tensor:
    """Noise of all subjects in the blocks that overlap [start, start + count), float32 [blocks · BLOCK, K].

    Row 0 is subject `start // BLOCK * BLOCK`. Whole blocks are returned because the rounding of functions such as exp
    may depend on a tensor's length: callers apply these to whole blocks and slice afterwards.
    """
    blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
    return torch.cat([_block(seed, stream, block) for block in blocks] or [torch.empty(0, len(SOURCES))])


def column(noise_NK: Tensor, name: str) -> Tensor:
    """The uniforms [N] of one source."""
    return noise_NK[:, _COLUMN[name]]
