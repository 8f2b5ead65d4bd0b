"""Recompute activations instead of keeping them (Chen et al. 2016): less memory, more time, the same gradients."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from civae_core.model.blocks import InvertedBlock, ResidualBlock
from civae_core.model.layers import Layers
from civae_core.model.original import BottleneckBlock, DownBlock, UpBlock

UNITS = (ResidualBlock, InvertedBlock, Layers, BottleneckBlock, DownBlock, UpBlock)
"""Modules made to keep only their inputs; together they hold nearly all that the backward pass needs.

The attribute predictor is not among them: guidance calls it with substituted weights, which a recomputation would
not know.
"""


def recompute_activations(model: nn.Module) -> None:
    """Make the model's larger modules drop their inner activations, and recompute them in the backward pass.

    Parameters keep their names. Without gradients, nothing changes.
    """
    for module in model.modules():
        if isinstance(module, UNITS):
            # No random numbers are drawn inside, so generator states need not be kept, which would query the device.
            again = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
            module.forward = again  # type: ignore[method-assign]
