"""Signed effects as colours: blue where a treatment darkens, red where it brightens.

Functions take arrays or tensors and return arrays; nothing here needs torch.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from civae_core.figures.grids import GAP, PAPER, image_grid
from civae_core.figures.pictures import Images, to_picture
from civae_core.figures.text import Typesetter

_DARKER = (33, 102, 172)
_BRIGHTER = (178, 24, 43)
_BAR_HEIGHT = 12


def effect_map(delta_NCHW: Images, limit: float | None = None) -> np.ndarray:
    """Effects y'−y [N, C, H, W] as uint8 colours [N, 3, H, W]: blue −limit, white 0, red +limit.

    Args:
        delta_NCHW: differences of images in [0, 1]; the mean over channels is shown.
        limit: the difference shown in full colour; by default the largest one present. Maps are comparable only
            under the same limit.
    """
    mean_N1HW = _channel_mean(delta_NCHW)[:, None]
    share_N1HW = (mean_N1HW / (effect_limit(delta_NCHW) if limit is None else limit)).clip(-1.0, 1.0)
    darker_13HW, brighter_13HW = (
        np.array(colour, dtype=np.float32).reshape(1, 3, 1, 1) for colour in (_DARKER, _BRIGHTER)
    )
    end_N3HW = np.where(share_N1HW < 0, darker_13HW, brighter_13HW)
    return np.round(255.0 + np.abs(share_N1HW) * (end_N3HW - 255.0)).astype(np.uint8)


def effect_limit(*deltas_NCHW: Images) -> float:
    """The largest channel-mean difference in any of the sets; at least one grey level."""
    return max(1.0 / 255.0, *(float(np.abs(_channel_mean(delta)).max()) for delta in deltas_NCHW))


def _channel_mean(delta_NCHW: Images) -> np.ndarray:
    if not isinstance(delta_NCHW, np.ndarray):
        delta_NCHW = delta_NCHW.detach().cpu().numpy()
    return delta_NCHW.astype(np.float32).mean(axis=1)


def effect_grid(
    columns: Sequence[tuple[str, Images]], row_labels: Sequence[str] | None = None
) -> Image.Image:
    """A sheet of effect maps under one limit, with the colour scale below.

    Args:
        columns: title and effects [N, C, H, W] of each column, as for `image_grid`.
        row_labels: N texts to the left of the rows.
    """
    limit = effect_limit(*(delta_NCHW for _, delta_NCHW in columns))
    return with_scale(
        image_grid([(title, effect_map(delta_NCHW, limit)) for title, delta_NCHW in columns], row_labels),
        limit,
    )


def with_scale(grid: Image.Image, limit: float, notes: Sequence[str] = ()) -> Image.Image:
    """Add a colour scale and remarks below a sheet that has effect maps among its columns.

    Args:
        limit: the limit with which the maps were drawn.
        notes: sentences, wrapped to the sheet's width.
    """
    type_ = Typesetter()
    texts = (f"darker −{limit:.2f}", "0", f"+{limit:.2f} brighter")
    width = max(grid.width, sum(map(type_.width, texts)) + 4 * GAP)
    remarks = [line for note in notes for line in type_.broken(note, width - 2 * GAP)]
    foot = len(remarks) * type_.line_height + (GAP if remarks else 0)
    height = grid.height + _BAR_HEIGHT + type_.line_height + 2 * GAP
    sheet = Image.new("RGB", (width, height + foot), PAPER)
    type_.draw(sheet, remarks, (GAP, height, width, height + foot - GAP), centred=False)
    sheet.paste(grid, (0, 0))
    ramp_11HW = np.broadcast_to(np.linspace(-1.0, 1.0, width - 2 * GAP), (1, 1, _BAR_HEIGHT, width - 2 * GAP))
    sheet.paste(to_picture(effect_map(ramp_11HW, 1.0)[0]), (GAP, grid.height + GAP))
    top = grid.height + GAP + _BAR_HEIGHT
    bottom = top + type_.line_height
    right_width = type_.width(texts[2])
    type_.draw(sheet, [texts[0]], (GAP, top, width, bottom), centred=False)
    type_.draw(sheet, [texts[1]], (GAP, top, width - GAP, bottom))
    type_.draw(sheet, [texts[2]], (width - GAP - right_width, top, width - GAP, bottom), centred=False)
    return sheet
