"""Similarity as people see it, through torchmetrics: MS-SSIM and, where its weights are on this machine, LPIPS.

Imported by evaluations only: torchmetrics takes seconds to load.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

log = logging.getLogger(__name__)

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Wang et al. 2003, from the finest scale to the coarsest."""
_WINDOW = 11
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""torchvision's weights of LPIPS's backbone."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images [B,C,S,S] in [0,1] to a distance [B]."""


def ms_ssim_scales(size: int) -> int:
    """How many of the five scales images of this side have room for: 2 at 32 px, 3 at 64, 4 at 128, 5 from 176."""
    return max(
        (n for n in range(1, len(_SCALE_WEIGHTS) + 1) if size // max(1, n - 1) ** 2 >= _WINDOW), default=0
    )


def ms_ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Multi-scale structural similarity [N] in [0, 1] (Wang et al. 2003), over as many scales as there is room for.

    With fewer than five scales the weights of the finest ones are scaled to sum to 1; a negative contrast term
    counts as 0. Numbers of different image sizes are not comparable.

    Raises:
        ValueError: images smaller than the window of 11 pixels.
    """
    scales = ms_ssim_scales(min(a_NCHW.shape[2:]))
    if not scales:
        raise ValueError(f"MS-SSIM needs images of at least 11×11 pixels, not {tuple(a_NCHW.shape[2:])}")
    total = sum(_SCALE_WEIGHTS[:scales])
    similarity_N: Tensor = multiscale_structural_similarity_index_measure(
        a_NCHW,
        b_NCHW,
        reduction="none",
        data_range=1.0,
        betas=tuple(weight / total for weight in _SCALE_WEIGHTS[:scales]),
        normalize="relu",
    )
    return similarity_N.reshape(-1)


def load_lpips(device: torch.device) -> Distance | None:
    """LPIPS (Zhang et al. 2018) over AlexNet, or None with a word of what is missing; nothing is ever downloaded."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import alexnet  # noqa: F401  (torchmetrics needs it without saying so)
    except ImportError:
        log.info("LPIPS is left out: it needs torchvision (pip install 'civae[lpips]')")
        return None
    if not weights.is_file():
        log.info("LPIPS is left out: its weights are not on this machine")
        log.debug("LPIPS looks for its backbone's weights at %s", weights)
        return None
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # refuses whatever could run code
        network = LearnedPerceptualImagePatchSimilarity("alex", normalize=True, reduction="sum")
    except Exception as error:
        reason = str(error).partition("\n")[0]
        log.warning("LPIPS is left out: %s cannot be read (%s)", weights, reason)
        return None
    network = network.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def distance(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        pairs = zip(_rgb(a_BCHW), _rgb(b_BCHW), strict=True)
        values = []
        for a_CHW, b_CHW in pairs:  # the library keeps a sum only
            network.reset()
            network.update(a_CHW[None], b_CHW[None])
            values.append(network.compute())
        return torch.stack(values)

    return distance


def _rgb(y_BCHW: Tensor) -> Tensor:
    return y_BCHW.clamp(0, 1).expand(-1, 3, -1, -1)
