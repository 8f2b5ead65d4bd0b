"""The encoder q(z|x,y,t) = N(r(x,y,t), diag s(x,y,t)²), given the factual treatment (M3); whole, or divided."""

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
    """What one pass over an image gives."""

    vector: DiagonalNormal
    """q of the latent vector."""
    features: dict[int, Tensor]
    """The last features at each resolution, [B,F,s,s] by side s."""


def make_vector_encoder(
    config: ModelConfig, size: int, channels: int, attributes: int
) -> "Encoder | DividedEncoder":
    """The encoder of the latent vector that the config asks for; arguments and calls as of `Encoder`."""
    kind = DividedEncoder if config.places else Encoder
    return kind(config, size, channels, attributes)


class Encoder(nn.Module):
    """Image and attributes to the posterior of z.

    Attributes enter as a modulation of every block: the same information as constant planes beside the image,
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
        """Image in [0,1] [B,C,S,S], standardised covariates [B,X] and factual treatments [B,T] to q(z|x,y,t)."""
        return self.read(y_BCHW, x_BX, t_BT).vector

    def read(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Reading:
        """As `forward`, with the features on the way."""
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
    """Places read off contours alone, looks off the image: q(z|x,y,t) = q(z_p|x,c(y),t) · q(z_l|x,y,t).

    Contours show where things are and not which side is lighter, so a treatment that recolours what it touches leaves
    the code of places as it was: long dark hair and long grey hair are both long.
    """

    def __init__(self, config: ModelConfig, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        looks = config.latent - config.places
        of_places, of_looks = (config.model_copy(update={"latent": n}) for n in (config.places, looks))
        self.places = Encoder(of_places, size, channels, attributes)
        self.looks = Encoder(of_looks, size, channels, attributes)

    def forward(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """As `Encoder.forward`; the first `model.places` dimensions of z are places."""
        return self.read(y_BCHW, x_BX, t_BT).vector

    def read(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> Reading:
        """As `forward`; the features are those of contours."""
        places = self.places.read(contours(y_BCHW), x_BX, t_BT)
        looks = self.looks(y_BCHW, x_BX, t_BT)
        return Reading(DiagonalNormal.join([places.vector, looks]), places.features)
