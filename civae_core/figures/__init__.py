"""Pictures for people who would rather look than read: sheets, sweeps, effect maps."""

from civae_core.figures.effects import effect_grid, effect_map
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import png_bytes, to_picture, to_uint8, write_png
from civae_core.figures.strips import strip

__all__ = [
    "effect_grid",
    "effect_map",
    "image_grid",
    "png_bytes",
    "strip",
    "to_picture",
    "to_uint8",
    "write_png",
]
