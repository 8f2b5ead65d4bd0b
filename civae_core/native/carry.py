"""Transfer an effect of S×S pixels to the photograph's own pixels, following the photograph's edges.

    Y' = Y + w · ( up(Δ) + up(A) · (Y − up(y)) )

y is the picture as the model saw it, Δ the change that the model makes, and `up` a cubic interpolation. A is a local
linear model of Δ in the colours of y, fitted in small windows: the guided filter's coefficients (He, Sun & Tang
2013), which vary slowly and can therefore be interpolated (He & Sun 2015). Where grey hair ends within one pixel of
y, it ends in Y' where the hair ends in Y; where Δ is unrelated to the colours, A is 0 and only `up(Δ)` is left.
Shrunk to S×S again, the second term all but vanishes, so the model's change becomes neither stronger nor weaker.
w is 1, and fades out towards the square's sides.

Changes of less than half a grey level (of 256) are dropped: those pixels stay identical, to the bit.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from civae_core.machine import available_cores
from civae_core.native.photo import Photo, in_channels
from civae_core.native.placement import Placement
from civae_core.native.resample import box_mean, read_fields

Tile = tuple[slice, slice]
"""Rows and columns of a photograph."""

RADIUS = 2
"""Radius of the windows, in the model's pixels."""
RIDGE = 1e-3
"""Variance of colours (in [0,1]) below which a window counts as flat: noise must not look like an edge."""
HALF_LEVEL = 0.5 / 255
_TILE = 256
_MOST_THREADS = 4  # each takes some 20 MB, and more of them would wait for memory rather than for a core


@dataclass(frozen=True)
class Effect:
    """The fields that are interpolated at each pixel of a photograph, at the model's size S."""

    change_CSS: np.ndarray
    """Δ, float32, in units of [0,1] images."""
    colours_CSS: np.ndarray
    """y, float32 in [0,1]."""
    gain_CKSS: np.ndarray
    """A, float32: the change of channel c per unit of colour k."""


def effect_of(image_CSS: np.ndarray, change_CSS: np.ndarray, *, follow_edges: bool = True) -> Effect:
    """The change and its local linear model.

    Args:
        image_CSS: y as the model saw it, uint8, C 1 or 3.
        change_CSS: y' − y, floats in units of [0,1] images.
        follow_edges: False only interpolates the change (A = 0).
    """
    colours_CSS, change_CSS = image_CSS.astype(np.float64) / 255, change_CSS.astype(np.float64)
    gain_CKSS = np.zeros((len(change_CSS), *colours_CSS.shape))
    if follow_edges and change_CSS.any():
        gain_CKSS = _local_gain(colours_CSS, change_CSS)
    return Effect(*(field.astype(np.float32) for field in (change_CSS, colours_CSS, gain_CKSS)))


def _local_gain(colours_CSS: np.ndarray, change_CSS: np.ndarray) -> np.ndarray:
    """Ridge regression of the change on the colours of each pixel's window, averaged over the windows it is in."""
    mean_KSS, mean_CSS = box_mean(colours_CSS, RADIUS), box_mean(change_CSS, RADIUS)
    spread = box_mean(colours_CSS[:, None] * colours_CSS, RADIUS) - mean_KSS[:, None] * mean_KSS
    shared = box_mean(colours_CSS[:, None] * change_CSS, RADIUS) - mean_KSS[:, None] * mean_CSS
    spread_SSKK = spread.transpose(2, 3, 0, 1) + RIDGE * np.eye(len(colours_CSS))
    gain_SSKC = np.linalg.solve(spread_SSKK, shared.transpose(2, 3, 0, 1))
    return box_mean(gain_SSKC.transpose(3, 2, 0, 1), RADIUS)


def apply_effect(photo: Photo, placement: Placement, effect: Effect) -> Photo:
    """The photograph with the effect applied; pixels that the effect does not reach stay identical, to the bit.

    With a model of grey pictures, every channel of a colour photograph gets the same change; a grey photograph gets
    the grey of a colour change. Transparent pixels do not change; translucent ones change only in colour.
    """
    pixels_HWC = photo.pixels_HWC.copy()
    if effect.change_CSS.any():

        def edit(tile: Tile) -> None:
            pixels_HWC[tile] = _edited(photo, tile, _change_in(photo, placement, effect, tile))

        # Tiles fit into the processor's cache, and NumPy lets several run at once.
        with ThreadPoolExecutor(min(available_cores(), _MOST_THREADS)) as pool:
            deque(pool.map(edit, _tiles(placement)), maxlen=0)
    return photo.with_pixels(pixels_HWC)


def _tiles(placement: Placement) -> Iterator[Tile]:
    """Yield tiles that cover all pixels the square may touch."""
    left, top, right, bottom = placement.box
    for y in range(top, bottom, _TILE):
        for x in range(left, right, _TILE):
            yield slice(y, min(y + _TILE, bottom)), slice(x, min(x + _TILE, right))


def _change_in(photo: Photo, placement: Placement, effect: Effect, tile: Tile) -> np.ndarray:
    """The effect at the pixels of a tile in the effect's own channels, float32 [C,H,W] in units of [0,1] images."""
    rows, columns = tile
    u, v = placement.locate(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
    channels = len(effect.change_CSS)
    fields = (
        effect.change_CSS,
        effect.colours_CSS,
        effect.gain_CKSS.reshape(-1, *effect.change_CSS.shape[1:]),
    )
    read_KHW = read_fields(np.concatenate(fields), u, v)
    change_CHW, colours_CHW, gain_KHW = np.split(read_KHW, [channels, 2 * channels])
    detail_CHW = photo.seen(tile, channels) - colours_CHW
    gain_CKHW = gain_KHW.reshape(channels, channels, *gain_KHW.shape[1:])
    change_CHW += (gain_CKHW * detail_CHW).sum(axis=1)
    return change_CHW * placement.weight(u, v)


def _edited(photo: Photo, tile: Tile, change_CHW: np.ndarray) -> np.ndarray:
    """The pixels of a tile with a change applied, [H,W,C] as in the photograph."""
    photo_HWC = photo.pixels_HWC[tile]
    change_HWC = in_channels(change_CHW, photo_HWC.shape[-1]).transpose(1, 2, 0)
    change_HWC = np.where(np.abs(change_HWC) < HALF_LEVEL, 0, change_HWC)
    levels_HWC = np.rint(change_HWC * photo.peak).astype(np.int32)
    if photo.alpha_HW is not None:
        levels_HWC *= (photo.alpha_HW[tile] > 0)[..., None]
    return np.clip(photo_HWC + levels_HWC, 0, photo.peak).astype(photo_HWC.dtype)
