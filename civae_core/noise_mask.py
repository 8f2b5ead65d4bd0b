"""The mask m of (M6): how much of the pixel noise e = y − f(z,t) still holds where the treatment changes the image.

    none    m = 1
    fade    m = exp(−(a/w)²),  a = max over channels of |f(z',t') − f(z,t)|

Where hair turned grey, the strands and outlines of the old hair are in e, and must not shine through. Where nothing
changes m is 1, so a null intervention still returns the photograph. `benchmarks/noise_masks.py` compares them, and
others that did not do better, by the truth.
"""

from typing import Literal

import torch
from torch import Tensor

NoiseMask = Literal["none", "fade"]


def noise_mask(effect_BCHW: Tensor, kind: NoiseMask, width: float) -> Tensor:
    """m in [0,1], [B,1,S,S].

    Args:
        effect_BCHW: f(z',t') − f(z,t) in units of [0,1] images.
        width: w, the change at which 63 % of e is gone, in the same units.
    """
    size_B1HW = effect_BCHW.abs().amax(dim=1, keepdim=True)
    if kind == "none":
        return torch.ones_like(size_B1HW)
    return torch.exp(-(size_B1HW / width).square())
