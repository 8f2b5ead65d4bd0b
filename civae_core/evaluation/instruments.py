"""The independent networks with which an evaluation judges images; none of them took part in training."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.errors import UsageError
from civae_core.evaluation.perceptual import Distance, load_lpips
from civae_core.evaluation.realism import Extractor, extractor_for, resolved_extractor
from civae_core.yardstick import Yardstick, load_yardstick, yardstick_for
from civae_core.yardstick.fit import IMAGES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instruments:
    """The available instruments; scores that need a missing one are absent."""

    yardstick: Yardstick | None = None
    """Attribute scorer and latent space: effectiveness, leak, minimality."""
    extractor: Extractor | None = None
    """Features for FID and KID."""
    lpips: Distance | None = None
    """Perceptual distance."""


def choose_instruments(
    data: PreparedData,
    roles: AttributeRoles,
    device: torch.device,
    *,
    scorer: str = "auto",
    scorer_images: int = IMAGES,
    extractor: str = "auto",
    keep: Path | None = None,
) -> Instruments:
    """Load the chosen instruments; train the scorer if necessary.

    Args:
        scorer: `auto` takes the scorer for this data and question from the cache, or trains it now; `none` does
            without; anything else is a file written by `civae train-scorer`.
        scorer_images: number of images that a scorer sees in training, if it must be trained.
        extractor: source of features for FID and KID: `none`, or as in `resolved_extractor` and `extractor_for`.
        keep: a folder that keeps the scorer of `auto`, as in `yardstick_for`.

    Raises:
        UsageError: a file or library is missing, or a scorer's file takes images of another format.
        DataError: a file cannot be read.
        CivaeError: `keep` cannot be written.
    """
    extractor = resolved_extractor(extractor)
    # First what may be rejected, since a scorer may take minutes to train.
    named = extractor not in ("none", "scorer")
    found = extractor_for(extractor, None, device) if named else None
    if found is not None and found.yardstick is not None:
        _require_format(f"--extractor {extractor}", found.yardstick, data)
    yardstick = None
    if scorer == "auto":
        yardstick = yardstick_for(data, roles, device, images=scorer_images, keep=keep)
    elif scorer != "none":
        yardstick = load_yardstick(Path(scorer), device)
        _require_format(f"--scorer {scorer}", yardstick, data)
        trained_on = yardstick.card.data
        if trained_on["fingerprint"] != data.fingerprint:
            log.warning("the scorer was trained on %s, not on this data", trained_on["name"])
    if extractor == "scorer":
        found = extractor_for(extractor, yardstick, device)
    return Instruments(yardstick, found, load_lpips(device, data.size))


def _require_format(flag: str, yardstick: Yardstick, data: PreparedData) -> None:
    card = yardstick.card
    if (card.size, card.channels) != (data.size, data.channels):
        raise UsageError(
            f"{flag}: takes images of {card.channels}×{card.size}×{card.size}, "
            f"but those of {data.path} are {data.channels}×{data.size}×{data.size}",
            hint="train one on this data with `civae train-scorer`",
        )
