"""The independent networks that an evaluation judges images with; none of them took part in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from civae_core.yardstick import Yardstick


@dataclass(frozen=True)
class Instruments:
    """What is at hand; scores that need a missing one are absent."""

    yardstick: Yardstick | None = None
    """Attribute scorer and latent space: effectiveness, leak, minimality, realism."""
