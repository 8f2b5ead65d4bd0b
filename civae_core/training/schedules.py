"""Schedules as pure functions of the images seen."""

import math
from typing import Literal

import torch
from torch import Tensor

from civae_core.config.schema import Config

EMA_RAMP = 0.05
"""The moving average's half-life is at most this share of the images seen (Karras et al. 2022)."""


def learning_rate(
    images: int, *, peak: float, warmup: int, total: int, decay: Literal["cosine", "none"]
) -> float:
    """Linear warm-up over `warmup` images, times a cosine decay from `peak` to zero at `total`, or a constant."""
    rise = min((images + 1) / warmup, 1.0) if warmup else 1.0
    if decay == "none":
        return peak * rise
    progress = min(images / total, 1.0)
    return peak * rise * 0.5 * (1 + math.cos(math.pi * progress))


def beta(images: int, *, final: float, warmup: int) -> float:
    """β of (M4): linear from zero over `warmup` images, then constant."""
    return final * min(images / warmup, 1.0) if warmup else final


def betas(images: int, config: Config, device: torch.device) -> float | Tensor:
    """β of every latent dimension: one number, or [Z] if z has grids, whose β is `loss.beta_grids`."""
    loss, model = config.loss, config.model
    vector, grids = (
        beta(images, final=final, warmup=loss.beta_warmup) for final in (loss.beta, loss.beta_grids)
    )
    if not model.grids:
        return vector
    sizes = ((vector, model.latent), (grids, model.dimensions - model.latent))
    return torch.cat([torch.full((size,), value, device=device) for value, size in sizes])


def ema_decay(images: int, *, halflife: float, batch_size: int) -> float:
    """Share of the old average kept in one step; 0 with a half-life of 0."""
    ramped = min(halflife, EMA_RAMP * images)
    return 0.5 ** (batch_size / ramped) if ramped > 0 else 0.0
