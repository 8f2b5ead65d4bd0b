"""The decoder p(y|z,t) = N(f(z,t), σ²), optionally given x as well (M2)."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import ACTIVATIONS, ConditionEmbedding, ResidualStage, Upsample, make_norm
from civae_core.model.distributions import clamp_through

CONDITION_FEATURES = 64
LOG_SIGMA_MIN, LOG_SIGMA_MAX = math.log(0.005), math.log(2.0)


@dataclass(frozen=True)
class PixelNormal:
    """p(y|·) per pixel: mean [B,C,S,S] in units of [0,1] images, log σ broadcastable to it."""

    mean_BCHW: Tensor
    log_sigma: Tensor

    def negative_log_likelihood(self, y_BCHW: Tensor) -> Tensor:
        """−log p(y) in nats, summed over pixels and channels: [B]."""
        scaled_BCHW = (y_BCHW - self.mean_BCHW) * torch.exp(-self.log_sigma)
        constant = self.log_sigma + 0.5 * math.log(2 * math.pi)
        return (0.5 * scaled_BCHW.square() + constant).flatten(1).sum(dim=1)


class Decoder(nn.Module):
    """Latent vector and treatment (and covariates) to a distribution over images.

    With `treatment_input: film` every block is scaled and shifted by an embedding of t; with `concat` the
    attributes stand as scalars beside z, as in the original project.
    """

    def __init__(
        self, config: ModelConfig, size: int, channels: int, treatments: int, covariates: int
    ) -> None:
        super().__init__()
        self.uses_x = config.x_in_decoder and covariates > 0
        attributes = treatments + (covariates if self.uses_x else 0)
        film = config.treatment_input == "film"
        widths = [config.width * multiple for multiple in reversed(config.stages)]
        self.bottom = size // 2 ** len(widths)
        self.channels = channels
        self.condition = ConditionEmbedding(attributes, CONDITION_FEATURES) if film else None
        self.root = nn.Linear(config.latent + (0 if film else attributes), widths[0] * self.bottom**2)
        self.stages = nn.ModuleList(
            ResidualStage(
                config.blocks, width, CONDITION_FEATURES if film else 0, config.norm, config.activation
            )
            for width in widths
        )
        self.ups = nn.ModuleList(Upsample(a, b) for a, b in itertools.pairwise(widths))
        maps = channels * (2 if config.sigma == "pixel" else 1)
        self.head = nn.Sequential(
            make_norm(config.norm, widths[-1]),
            ACTIVATIONS[config.activation](),
            nn.Conv2d(widths[-1], 4 * maps, 3, padding=1),
        )
        self.sigma_kind = config.sigma
        initial = torch.full(
            (channels if config.sigma == "channel" else 1, 1, 1), math.log(config.sigma_init)
        )
        if config.sigma == "fixed":
            self.register_buffer("log_sigma", initial)
        else:
            self.log_sigma = nn.Parameter(initial)

    def forward(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        """z [B,Z], standardised treatments [B,T] (any real value) and covariates [B,X] to p(y|z,t[,x])."""
        attributes_BA = torch.cat([t_BT, x_BX], dim=1) if self.uses_x else t_BT
        if self.condition is None:
            condition_BF = attributes_BA
            z_BZ = torch.cat([z_BZ, attributes_BA], dim=1)
        else:
            condition_BF = self.condition(attributes_BA)
        h_BCHW = self.root(z_BZ).unflatten(1, (-1, self.bottom, self.bottom))
        for index, stage in enumerate(self.stages):
            if index:
                h_BCHW = self.ups[index - 1](h_BCHW)
            h_BCHW = stage(h_BCHW, condition_BF)
        out_BCHW = F.pixel_shuffle(self.head(h_BCHW), 2).float()
        if self.sigma_kind == "pixel":
            out_BCHW, map_BCHW = out_BCHW.split(self.channels, dim=1)
            log_sigma = (self.log_sigma + map_BCHW).clamp(LOG_SIGMA_MIN, LOG_SIGMA_MAX)
        else:
            # One number has no neighbours whose gradient would bring it back from beyond its range.
            log_sigma = clamp_through(self.log_sigma, LOG_SIGMA_MIN, LOG_SIGMA_MAX)
        return PixelNormal(0.5 + 0.5 * out_BCHW, log_sigma)
