"""Contours of an image: where edges run, whichever side of them is lighter."""

from torch import Tensor
from torch.nn import functional as F


def contours(y_BCHW: Tensor) -> Tensor:
    """The strength of the edge through each pixel, in [0,1), whichever side of it is lighter: [B,C,S,S].

        c = g / (g + 1/S),    g = |∇y| by central differences, the border repeated

    Saturation makes a faint edge nearly as visible as a strong one; 1/S is the gradient of a change from 0 to 1 over
    the image's side.
    """
    padded_BCHW = F.pad(y_BCHW, (1, 1, 1, 1), mode="replicate")
    across_BCHW = 0.5 * (padded_BCHW[..., 1:-1, 2:] - padded_BCHW[..., 1:-1, :-2])
    down_BCHW = 0.5 * (padded_BCHW[..., 2:, 1:-1] - padded_BCHW[..., :-2, 1:-1])
    # The constant under the root keeps the gradient finite where the image is flat.
    strength_BCHW = (across_BCHW.square() + down_BCHW.square() + 1e-6).sqrt()
    return strength_BCHW / (strength_BCHW + 1 / y_BCHW.shape[-1])
