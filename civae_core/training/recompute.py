"""Activations computed twice instead of kept (Chen et al. 2016): memory for time, with the same gradients."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from civae_core.model.blocks import InvertedBlock, ResidualBlock
from civae_core.model.layers import Layers
from civae_core.model.original import BottleneckBlock, DownBlock, UpBlock

UNITS = (ResidualBlock, InvertedBlock, Layers, BottleneckBlock, DownBlock, UpBlock)
"""Parts that keep nothing but their inputs; together they hold nearly all that backward asks for.

The attribute predictor is none: guidance calls it with other weights, which a second computation would not know.
"""


def recompute_activations(model: nn.Module) -> None:
    """Makes the model's larger parts forget what lies between input and output, and compute it anew in backward.

    Parameters keep their names. Only where gradients are wanted does anything change.
    """
    for module in model.modules():
        if isinstance(module, UNITS):
            # Nothing inside draws random numbers, so no generator's state needs keeping, which would ask the device.
            again = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
            module.forward = again  # type: ignore[method-assign]
