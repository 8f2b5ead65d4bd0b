"""The independent networks that an evaluation judges images with; none of them took part in training."""

from dataclasses import dataclass

from civae_core.evaluation.realism import Extractor
from civae_core.yardstick import Yardstick


@dataclass(frozen=True)
class Instruments:
    """What is at hand; scores that need a missing one are absent."""

    yardstick: Yardstick | None = None
    """Attribute scorer and latent space: effectiveness, leak, minimality."""
    extractor: Extractor | None = None
    """Features for FID and KID."""
