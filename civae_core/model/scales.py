"""Latents on several scales: a vector z₁, then grids z_s of s×s places, each given the coarser ones (METHOD 4.6).

    prior       p(z|x,t)   = p(z₁|x,t) · Π_s p(z_s | z_<s, x, t)
    posterior   q(z|y,x,t) = q(z₁|y,x,t) · Π_s q(z_s | z_<s, y, x, t)

    u_s = block( up(u_<s) + a_s(z_<s) + d_s ; FiLM(x,t) ),   N( h_s, k_s² ) with h_s, log k_s read off u_s

z₁ fills the coarsest u. Prior and posterior each have such a network; only the posterior's has d_s, the image's
features at side s. Grids of fine detail (`civae_core.model.detail`) treat z₁ as a constant and send it no gradient.
Means are absolute, not offsets from the prior's: a grid codes what the image shows under t, and the prior's h_s must
learn how much of that is due to t, which abduction then removes, scale by scale (M5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import (
    ACTIVATIONS,
    CONDITION_FEATURES,
    ConditionEmbedding,
    ResidualStage,
    as_grid,
    make_norm,
)
from civae_core.model.decoder import PixelNormal
from civae_core.model.detail import DetailReader
from civae_core.model.distributions import ChainedNormal, DiagonalNormal
from civae_core.model.encoder import DividedEncoder, Encoder
from civae_core.model.prior import Prior


class TopDown(nn.Module):
    """The distribution of each grid of z, given the coarser parts of z, attributes and, for a posterior, an image.

    Args:
        config: a config with at least one grid.
        bottom: side at which z₁ is spread out; divides the side of every grid.
        attributes: number of conditioning attributes.
        features: channels of the image's features at each grid's side; empty for a prior.
    """

    def __init__(
        self, config: ModelConfig, bottom: int, attributes: int, features: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.grids, self.channels, self.bottom = config.grids, config.scale_latents, bottom
        width = config.width
        self.is_detail = config.decoder == "layered"
        self.condition = ConditionEmbedding(attributes, CONDITION_FEATURES)
        self.root = nn.Linear(config.latent, width * bottom**2)
        self.takes = nn.ModuleList(nn.Conv2d(self.channels, width, 1) for _ in self.grids[:-1])
        self.skips = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in features)
        self.stages = nn.ModuleList(ResidualStage(config, 1, width, CONDITION_FEATURES) for _ in self.grids)
        heads = [nn.Conv2d(width, 2 * self.channels, 1) for _ in self.grids]
        if not features:
            # As for the vector, a learned prior is initialised to N(0,I).
            for parameter in (parameter for head in heads for parameter in head.parameters()):
                nn.init.zeros_(parameter)
        self.heads = nn.ModuleList(
            nn.Sequential(make_norm(config.norm, width), ACTIVATIONS[config.activation](), head)
            for head in heads
        )

    def after(self, first: DiagonalNormal, attributes_BA: Tensor, see: "See | None" = None) -> ChainedNormal:
        """The distribution of all of z, given that of its vector, `first`.

        `see` maps z₁ [B,Z₁] to an image's features at each grid's side [B,F,s,s], coarse to fine.
        """
        return ChainedNormal(first, _Bound(self, self.condition(attributes_BA), see))

    def step(
        self,
        parts: list[Tensor],
        u_BFHW: Tensor | None,
        condition_BF: Tensor,
        features: Sequence[Tensor],
    ) -> tuple[DiagonalNormal, Tensor]:
        """The distribution of the grid after `parts`, and u at its side; pass u = None for the first grid."""
        index = len(parts) - 1
        side = self.grids[index]
        if u_BFHW is None:
            first_BZ = parts[0].detach() if self.is_detail else parts[0]
            u_BFHW = self.root(first_BZ).unflatten(1, (-1, self.bottom, self.bottom))
        else:
            u_BFHW = u_BFHW + self.takes[index - 1](as_grid(parts[-1], self.grids[index - 1]))
        if u_BFHW.shape[-1] != side:
            u_BFHW = F.interpolate(u_BFHW, size=(side, side), mode="nearest")
        if features:
            u_BFHW = u_BFHW + self.skips[index](features[index])
        u_BFHW = self.stages[index](u_BFHW, condition_BF)
        return DiagonalNormal.from_parameters(self.heads[index](u_BFHW).flatten(1)), u_BFHW


@dataclass(frozen=True)
class _Bound:
    """A network together with its inputs other than z."""

    network: TopDown
    condition_BF: Tensor
    see: "See | None"

    @property
    def length(self) -> int:
        return len(self.network.grids)

    def follow(self, parts: list[Tensor], state: Any) -> tuple[DiagonalNormal, Any]:
        u_BFHW, features = state or (None, self.see(parts[0]) if self.see else ())
        normal, u_BFHW = self.network.step(parts, u_BFHW, self.condition_BF, features)
        return normal, (u_BFHW, features)


See = Callable[[Tensor], Sequence[Tensor]]
Paint = Callable[[Tensor], PixelNormal]


class ScaledPrior(nn.Module):
    """p(z|x,t) over all scales; with `prior: x`, t is left out on every scale.

    Args:
        config: a config with at least one grid, and a learned prior.
        bottom: side at which z₁ is spread out, as for `TopDown`.
        treatments, covariates: how many there are; either may be 0.
    """

    def __init__(self, config: ModelConfig, bottom: int, treatments: int, covariates: int) -> None:
        super().__init__()
        self.vector = Prior(config, treatments, covariates)
        self.knows_t = config.prior == "xt"
        self.grids = TopDown(config, bottom, covariates + (treatments if self.knows_t else 0))

    def forward(self, x_BX: Tensor, t_BT: Tensor) -> ChainedNormal:
        """The prior of z [B,Z], given standardised covariates [B,X] and treatments [B,T]."""
        attributes_BA = torch.cat([t_BT, x_BX], dim=1) if self.knows_t else x_BX
        return self.grids.after(self.vector(x_BX, t_BT), attributes_BA)


class ScaledEncoder(nn.Module):
    """q(z|x,y,t) over all scales."""

    def __init__(
        self,
        config: ModelConfig,
        vector: Encoder | DividedEncoder,
        size: int,
        channels: int,
        attributes: int,
    ) -> None:
        """
        Args:
            vector: the encoder of z₁; grids are read off its features, unless they paint fine detail.
            size: side of the image in pixels.
            channels: 1 (grey) or 3 (RGB).
        """
        super().__init__()
        self.bottom_up = vector
        self.sides = config.grids
        self.detail = DetailReader(config, size, channels) if config.decoder == "layered" else None
        widths = {size // 2**n: config.width * m for n, m in enumerate(config.stages, start=1)}
        features = [config.width if self.detail is not None else widths[side] for side in self.sides]
        self.grids = TopDown(config, min(widths), attributes, features)

    def forward(
        self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, paint: Paint | None = None
    ) -> ChainedNormal:
        """q(z|x,y,t) for images [B,C,S,S] in [0,1], standardised covariates [B,X] and factual treatments [B,T].

        `paint` maps z₁ to p(y|z₁,t); grids of fine detail are read off the residual of the image from it.
        """
        reading = self.bottom_up.read(y_BCHW, x_BX, t_BT)

        def see(z_BZ: Tensor) -> Sequence[Tensor]:
            if self.detail is None or paint is None:
                return [reading.features[side] for side in self.sides]
            # Not under no_grad: there, autocast in older PyTorch caches casts of g's weights without gradient and
            # reuses them later, where g should learn (pytorch#112583).
            left_BCHW = paint(z_BZ).standardise(y_BCHW).detach()
            features: Sequence[Tensor] = self.detail(left_BCHW)
            return features

        return self.grids.after(reading.vector, torch.cat([t_BT, x_BX], dim=1), see)
