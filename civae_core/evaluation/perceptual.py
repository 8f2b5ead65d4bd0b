"""LPIPS, a distance learned from human judgements of similarity, by torchmetrics, if its weights are available."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from civae_core.extras import install, missing

log = logging.getLogger(__name__)

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""torchvision's weights for the backbone of LPIPS."""
LPIPS_SMALLEST = 31
"""Smallest side of an image in pixels; below it, AlexNet's last pooling has nothing to pool."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""From two batches of images [B,C,S,S] in [0,1] to a distance [B]."""


def load_lpips(device: torch.device, size: int | None = None) -> Distance | None:
    """LPIPS (Zhang et al. 2018) with AlexNet, or None after logging what is missing; nothing is ever downloaded.

    Grey images count as three equal channels; values outside [0,1] are clamped.

    Args:
        device: the device of the images.
        size: side of the images, if known; the distance raises ValueError for images below `LPIPS_SMALLEST`.
    """
    if size is not None and size < LPIPS_SMALLEST:
        log.info("LPIPS is left out: it needs images of at least %d pixels, not %d", LPIPS_SMALLEST, size)
        return None
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if missing("lpips"):
        log.info("LPIPS is left out: it needs torchvision (%s)", install("lpips"))
        return None
    if not weights.is_file():
        # Must fit on one line of a terminal, which a whole path would not.
        log.info("LPIPS is left out: no $TORCH_HOME/hub/checkpoints/%s", ALEXNET_FILE)
        log.debug("LPIPS looks for torchvision's weights of AlexNet at %s", weights)
        return None
    try:
        network = _lpips_network(weights)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        log.warning("LPIPS is left out: %s cannot be read (%s)", weights, reason)
        return None
    network = network.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def distance(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        if min(a_BCHW.shape[2:]) < LPIPS_SMALLEST:
            raise ValueError(f"LPIPS needs images of at least 31×31 pixels, not {tuple(a_BCHW.shape[2:])}")
        found_B111: Tensor = network(_rgb(a_BCHW), _rgb(b_BCHW), normalize=True)
        return found_B111.flatten()

    return distance


def _lpips_network(weights: Path) -> torch.nn.Module:
    """The library's network, with a backbone that is loaded safely.

    The library's own way of loading the backbone unpickles whatever the file holds, and downloads what is missing. So
    the backbone is made without weights, and then given those that a load restricted to tensors has found.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = _LPIPS(net="alex", pnet_rand=True)  # random backbone; the heads come with the library
    backbone = network.net.state_dict()  # slice1.0.weight is torchvision's features.0.weight
    network.net.load_state_dict({key: state[f"features.{key.partition('.')[2]}"] for key in backbone})
    return network


def _rgb(y_BCHW: Tensor) -> Tensor:
    return y_BCHW.clamp(0, 1).expand(-1, 3, -1, -1)
