"""The decoder p(y|z,t) = N(f(z,t), σ²), optionally given x as well (M2)."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import (
    ACTIVATIONS,
    CONDITION_FEATURES,
    ConditionEmbedding,
    ResidualStage,
    Upsample,
    as_grid,
    make_norm,
)
from civae_core.model.distributions import clamp_through
from civae_core.model.layers import Layers

LOG_SIGMA_MIN, LOG_SIGMA_MAX = math.log(0.005), math.log(2.0)


@dataclass(frozen=True)
class PixelNormal:
    """p(y|·) per pixel: mean [B,C,S,S] in units of [0,1] images, log σ broadcastable to it."""

    mean_BCHW: Tensor
    log_sigma: Tensor
    coarse: "PixelNormal | None" = None
    """With fine detail (`civae_core.model.detail`): the distribution of the image without it."""

    @property
    def structure_BCHW(self) -> Tensor:
        """The mean without fine detail."""
        return self.mean_BCHW if self.coarse is None else self.coarse.mean_BCHW

    def standardise(self, y_BCHW: Tensor) -> Tensor:
        """The pixel noise of an image in standard deviations, (y − f)/σ: [B,C,S,S]."""
        return (y_BCHW - self.mean_BCHW) * torch.exp(-self.log_sigma)

    def negative_log_likelihood(self, y_BCHW: Tensor) -> Tensor:
        """−log p(y) in nats, summed over pixels and channels: [B]."""
        scaled_BCHW = self.standardise(y_BCHW)
        constant = self.log_sigma + 0.5 * math.log(2 * math.pi)
        return (0.5 * scaled_BCHW.square() + constant).flatten(1).sum(dim=1)

    def training_loss(self, y_BCHW: Tensor) -> Tensor:
        """The decoder's loss in nats, summed over pixels and channels: [B].

        Without fine detail, this is −log p(y). With it, it is −log p(y) with the coarse mean held constant, plus
        −log p(y) of the distribution without detail, the only term from which the coarse decoder learns.
        """
        if self.coarse is None:
            return self.negative_log_likelihood(y_BCHW)
        below_BCHW = self.coarse.mean_BCHW
        on_top = PixelNormal(self.mean_BCHW - (below_BCHW - below_BCHW.detach()), self.log_sigma)
        return on_top.negative_log_likelihood(y_BCHW) + self.coarse.negative_log_likelihood(y_BCHW)


def give_sigma(decoder: nn.Module, config: ModelConfig, channels: int) -> None:
    """Give a decoder its `log_sigma`: one number, or one per channel; learned unless `sigma: fixed`."""
    initial = torch.full((channels if config.sigma == "channel" else 1, 1, 1), math.log(config.sigma_init))
    if config.sigma == "fixed":
        decoder.register_buffer("log_sigma", initial)
    else:
        decoder.register_parameter("log_sigma", nn.Parameter(initial))


def split_sigma(kind: str, log_sigma: Tensor, out_BMHW: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Split a decoder's output into its other maps and log σ, clamped; the last maps are σ's with `sigma: pixel`."""
    if kind == "pixel":
        out_BMHW, map_BCHW = out_BMHW.tensor_split([-channels], dim=1)
        return out_BMHW, (log_sigma + map_BCHW).clamp(LOG_SIGMA_MIN, LOG_SIGMA_MAX)
    return out_BMHW, clamped(log_sigma)


def clamped(log_sigma: Tensor) -> Tensor:
    """Clamp log σ straight-through: a single number has no neighbours whose gradient could bring it back in range."""
    return clamp_through(log_sigma, LOG_SIGMA_MIN, LOG_SIGMA_MAX)


class Decoder(nn.Module):
    """Maps latents and treatment (and covariates) to a distribution over images.

    With `decoder: direct` the network paints pixels and is given t, with `treatment_input: film` as scale and shift
    in every block, with `concat` as scalars beside z (as in the original project). With `decoder: layered` it never
    sees t and paints the places of several layers; `Layers` gives their looks. Grids of latents enter at the
    resolution that matches their side.

    Args:
        config: widths, depth, latent size, normalisation, and how pixels, layers and σ are given.
        size: side of the square image in pixels; divisible by 2 ** len(config.stages).
        channels: 1 (grey) or 3 (RGB).
        treatments: number of treatments.
        covariates: number of covariates; the network sees them only with `x_in_decoder`.
    """

    log_sigma: Tensor

    def __init__(
        self, config: ModelConfig, size: int, channels: int, treatments: int, covariates: int
    ) -> None:
        super().__init__()
        self.uses_x = config.x_in_decoder and covariates > 0
        covariates = covariates if self.uses_x else 0
        layered = config.decoder == "layered"
        attributes = covariates + (0 if layered else treatments)
        film = config.treatment_input == "film"
        self.places, self.vector = config.places, config.latent
        self.grids, self.grid_channels = config.grids, config.scale_latents
        latent = config.places or config.latent
        widths = [config.width * multiple for multiple in reversed(config.stages)]
        self.bottom = size // 2 ** len(widths)
        self.channels = channels
        self.condition = ConditionEmbedding(attributes, CONDITION_FEATURES) if film else None
        self.root = nn.Linear(latent + (0 if film else attributes), widths[0] * self.bottom**2)
        self.stages = nn.ModuleList(
            ResidualStage(config, config.blocks, width, CONDITION_FEATURES if film else 0) for width in widths
        )
        self.ups = nn.ModuleList(Upsample(a, b) for a, b in itertools.pairwise(widths))
        sides = {self.bottom * 2**index: width for index, width in enumerate(widths)}
        self.takes = nn.ModuleList(nn.Conv2d(config.scale_latents, sides[side], 1) for side in self.grids)
        self.layers = Layers(config, channels, treatments + covariates) if layered else None
        self.sigma_kind = config.sigma
        maps = (config.layers if layered else channels) + (channels if config.sigma == "pixel" else 0)
        self.head = nn.Sequential(
            make_norm(config.norm, widths[-1]),
            ACTIVATIONS[config.activation](),
            nn.Conv2d(widths[-1], 4 * maps, 3, padding=1),
        )
        give_sigma(self, config, channels)

    def forward(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        """p(y|z,t[,x]) for z [B,Z], standardised treatments [B,T] (any real value) and covariates [B,X]."""
        out_BMHW, log_sigma = self._paint(z_BZ, t_BT, x_BX)
        return PixelNormal(self._mean(out_BMHW, z_BZ, t_BT, x_BX), log_sigma)

    def with_other_looks(
        self, z_BZ: Tensor, other_BZ: Tensor, t_BT: Tensor, x_BX: Tensor
    ) -> tuple[PixelNormal, Tensor]:
        """p(y|z,t[,x]), and the mean [B,C,S,S] for the same places with the looks of another z; only for layers."""
        out_BMHW, log_sigma = self._paint(z_BZ, t_BT, x_BX)
        mean_BCHW = self._mean(out_BMHW, z_BZ, t_BT, x_BX)
        return PixelNormal(mean_BCHW, log_sigma), self._mean(out_BMHW, other_BZ, t_BT, x_BX)

    def _mean(self, out_BMHW: Tensor, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> Tensor:
        """The image in units of [0,1]: as painted, or composed of layers with the looks of z."""
        if self.layers is None:
            return 0.5 + 0.5 * out_BMHW
        looks_BZ = z_BZ[:, self.places : self.vector]
        return 0.5 + 0.5 * self.layers(out_BMHW, looks_BZ, torch.cat([t_BT, self._given(x_BX)], dim=1))

    def _paint(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> tuple[Tensor, Tensor]:
        """The image in units of [−1,1], or the logits of the layers' masks: [B,M,S,S]; and log σ."""
        x_BX = self._given(x_BX)
        attributes_BA = torch.cat([t_BT, x_BX], dim=1) if self.layers is None else x_BX
        # An undivided z codes both places and looks.
        out_BMHW = self._convolve(
            z_BZ[:, : self.places or self.vector], z_BZ[:, self.vector :], attributes_BA
        )
        return split_sigma(self.sigma_kind, self.log_sigma, out_BMHW, self.channels)

    def _given(self, x_BX: Tensor) -> Tensor:
        return x_BX if self.uses_x else x_BX[:, :0]

    def _convolve(self, z_BZ: Tensor, fine_BZ: Tensor, attributes_BA: Tensor) -> Tensor:
        """The convolutional part, from the vector and the grids that follow it to [B, maps, S, S] in float32."""
        grids = fine_BZ.split([self.grid_channels * side**2 for side in self.grids], dim=1)
        arriving = {
            side: take(as_grid(grid, side))
            for side, take, grid in zip(self.grids, self.takes, grids, strict=True)
        }
        if self.condition is None:
            condition_BF = attributes_BA
            z_BZ = torch.cat([z_BZ, attributes_BA], dim=1)
        else:
            condition_BF = self.condition(attributes_BA)
        h_BCHW = self.root(z_BZ).unflatten(1, (-1, self.bottom, self.bottom))
        for index, stage in enumerate(self.stages):
            if index:
                h_BCHW = self.ups[index - 1](h_BCHW)
            if (side := self.bottom * 2**index) in arriving:
                h_BCHW = h_BCHW + arriving[side]
            h_BCHW = stage(h_BCHW, condition_BF)
        return F.pixel_shuffle(self.head(h_BCHW), 2).float()
