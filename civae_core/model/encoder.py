"""The encoder q(z|x,y,t) = N(r(x,y,t), diag s(x,y,t)²), given the factual t (M3); one network, or two (divided)."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import (
    ACTIVATIONS,
    CONDITION_FEATURES,
    ConditionEmbedding,
    Downsample,
    ResidualStage,
    make_norm,
)
from civae_core.model.contours import contours
from civae_core.model.distributions import DiagonalNormal


@dataclass(frozen=True)
class Reading:
    """The result of one pass over an image."""

    vector: DiagonalNormal
    """q of the latent vector."""
    features: dict[int, Tensor]
    """The last features at each resolution, [B,F,s,s] by side s."""


def make_vector_encoder(
    config: ModelConfig, size: int, channels: int, attributes: int
) -> "Encoder | DividedEncoder":
    """The configured encoder of the latent vector; arguments and interface as for `Encoder`."""
    kind = DividedEncoder if config.places else Encoder
    return kind(config, size, channels, attributes)


class Encoder(nn.Module):
    """Maps image and attributes to the posterior of z.

    Attributes modulate every block. This gives the network the same information as constant planes beside the image,
    without convolving them at full resolution.

    Args:
        config: widths, depth, latent size, normalisation.
        size: side of the square image in pixels; divisible by 2 ** len(config.stages).
        channels: 1 (grey) or 3 (RGB).
        attributes: number of treatments and covariates together.
    """

    def __init__(self, config: ModelConfig, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        widths = [config.width * multiple for multiple in config.stages]
        bottom = size // 2 ** len(widths)
        self.condition = ConditionEmbedding(attributes, CONDITION_FEATURES)
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            ResidualStage(config, config.blocks, width, CONDITION_FEATURES) for width in widths
        )
        self.downs = nn.ModuleList(Downsample(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Sequential(
            make_norm(config.norm, widths[-1]),
            ACTIVATIONS[config.activation](),
            nn.Flatten(),
            nn.Linear(widths[-1] * bottom * bottom, 2 * config.latent),
        )

    def forward(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """q(z|x,y,t) for images [B,C,S,S] in [0,1], standardised covariates [B,X] and factual treatments [B,T]."""
        return self.read(y_BCHW, x_BX, t_BT).vector

    def read(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Reading:
        """Like `forward`, and also return the features at each resolution."""
        condition_BF = self.condition(torch.cat([t_BT, x_BX], dim=1))
        features = {}
        h_BCHW = self.stem(F.pixel_unshuffle(2 * y_BCHW - 1, 2))
        for index, stage in enumerate(self.stages):
            if index:
                h_BCHW = self.downs[index - 1](h_BCHW)
            h_BCHW = stage(h_BCHW, condition_BF)
            features[h_BCHW.shape[-1]] = h_BCHW
        return Reading(DiagonalNormal.from_parameters(self.head(h_BCHW)), features)


class DividedEncoder(nn.Module):
    """Encodes places from contours alone, and looks from the image: q(z|x,y,t) = q(z_p|x,c(y),t) · q(z_l|x,y,t).

    Contours show where things are, but not which side is lighter. A treatment that only recolours therefore leaves
    the code of places unchanged: long dark hair and long grey hair are both long.
    """

    def __init__(self, config: ModelConfig, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        looks = config.latent - config.places
        of_places, of_looks = (config.model_copy(update={"latent": n}) for n in (config.places, looks))
        self.places = Encoder(of_places, size, channels, attributes)
        self.looks = Encoder(of_looks, size, channels, attributes)

    def forward(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """Like `Encoder.forward`; the first `model.places` dimensions of z are places."""
        return self.read(y_BCHW, x_BX, t_BT).vector

    def read(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Reading:
        """Like `Encoder.read`; the features are those of the contours' network."""
        places = self.places.read(contours(y_BCHW), x_BX, t_BT)
        looks = self.looks(y_BCHW, x_BX, t_BT)
        return Reading(DiagonalNormal.join([places.vector, looks]), places.features)
