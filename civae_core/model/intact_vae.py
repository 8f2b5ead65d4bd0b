"""The β-Intact-VAE, which joins encoder, decoder and prior. Its interface takes attributes in raw units.

Shape suffixes: B batch, C colour channels, H and W pixels, Z latent dimensions, T treatments, X covariates, A all
attributes (treatments first), F features.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import ModelConfig
from civae_core.errors import UsageError
from civae_core.model.decoder import Decoder, PixelNormal
from civae_core.model.detail import DetailedDecoder
from civae_core.model.distributions import DiagonalNormal, LatentNormal
from civae_core.model.networks import make_decoder, make_encoder, make_prior
from civae_core.model.pairing import Pairing
from civae_core.model.predictor import AttributePredictor


@dataclass(frozen=True)
class ModelOutput:
    """The objective's inputs from one pass: distributions along the sampled z, and the predictor's outputs [B, A]."""

    posterior: DiagonalNormal
    prior: DiagonalNormal
    likelihood: PixelNormal
    predicted_BA: Tensor | None


class IntactVAE(nn.Module):
    """β-Intact-VAE for images (Wu & Fukumizu 2022; docs/method.md).

    All methods take images as floats in [0,1] and attributes in raw units (binary 0/1, continuous as in the table);
    attributes are standardised inside.
    """

    t_shift: Tensor
    t_scale: Tensor
    t_low: Tensor
    t_high: Tensor
    x_shift: Tensor
    x_scale: Tensor

    def __init__(self, config: ModelConfig, roles: AttributeRoles, size: int, channels: int) -> None:
        """
        Raises:
            UsageError: the image size is not divisible by the network's total stride, or a scale of latents is not
                one of the network's resolutions.
        """
        super().__init__()
        stride = 2 ** len(config.stages)
        if size % stride or size < stride:
            raise UsageError(
                f"model.stages: {len(config.stages)} stages need an image size divisible by {stride}, not {size}",
                hint="prepare the data at another --size, or use fewer stages",
            )
        sides = [size // 2**n for n in range(len(config.stages), 0, -1)]
        if unfit := [side for side in config.grids if side not in sides]:
            raise UsageError(
                f"model.scales: {unfit[0]} is not a resolution of this network, whose {len(config.stages)} "
                f"stages reduce {size} px to {', '.join(map(str, sides))}",
                hint="choose from these, or change model.stages",
            )
        treatments, covariates = len(roles.treatments), len(roles.covariates)
        self.size, self.channels, self.latent = size, channels, config.dimensions
        self.scaled = bool(config.grids)
        self.noise_mask, self.mask_width = config.noise_mask, config.mask_width
        self.latent_mask_width = config.latent_mask_width
        self.looks, self.looks_mask_width = config.looks, config.looks_mask_width
        self.encoder = make_encoder(config, size, channels, treatments + covariates)
        self.decoder = make_decoder(config, size, channels, treatments, covariates)
        self.prior = make_prior(config, size, treatments, covariates)
        self.pairing = Pairing(roles.treatments, config.turned) if config.turned else None
        self.predictor = (
            AttributePredictor(size, channels, treatments + covariates) if config.predictor else None
        )
        for name, attributes in (("t", roles.treatments), ("x", roles.covariates)):
            shift, scale = _shift_and_scale(attributes)
            self.register_buffer(f"{name}_shift", shift, persistent=False)
            self.register_buffer(f"{name}_scale", scale, persistent=False)
        low, high = _reach(roles.treatments)
        self.register_buffer("t_low", low, persistent=False)
        self.register_buffer("t_high", high, persistent=False)

    def standardise_t(self, t_BT: Tensor) -> Tensor:
        """Standardise treatments; continuous ones are first clamped to the range seen in training.

        Beyond that range the network has learned nothing; unclamped doses even reversed the effect. Clamped, they
        give the answer of the nearest dose seen. Binary treatments may take any value: two arms define a line.
        """
        return (t_BT.clamp(self.t_low, self.t_high) - self.t_shift) / self.t_scale

    def standardise_x(self, x_BX: Tensor) -> Tensor:
        return (x_BX - self.x_shift) / self.x_scale

    def encode(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> LatentNormal:
        """q(z|x,y,t) for the factual treatment (M3)."""
        x_in_BX, t_in_BT = self.standardise_x(x_BX), self.standardise_t(t_BT)
        given: list[Any] = [y_BCHW, x_in_BX, t_in_BT]
        if isinstance(self.decoder, DetailedDecoder):
            given.append(partial(self.decoder.coarse, t_BT=t_in_BT, x_BX=x_in_BX))
        posterior: LatentNormal = self.encoder(*given)
        return posterior

    def decode(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        """p(y|z,t[,x]) (M2); t may be any real value (see `standardise_t`)."""
        likelihood: PixelNormal = self.decoder(z_BZ, self.standardise_t(t_BT), self.standardise_x(x_BX))
        return likelihood

    def decode_with_other_looks(
        self, z_BZ: Tensor, other_BZ: Tensor, t_BT: Tensor, x_BX: Tensor
    ) -> tuple[PixelNormal, Tensor]:
        """p(y|z,t[,x]), and the mean without fine detail [B,C,S,S] for the same places with the looks of another z.

        Only for models whose z separates places from looks. Costs hardly more than `decode`.
        """
        assert isinstance(self.decoder, Decoder | DetailedDecoder)
        t_in_BT, x_in_BX = self.standardise_t(t_BT), self.standardise_x(x_BX)
        return self.decoder.with_other_looks(z_BZ, other_BZ, t_in_BT, x_in_BX)

    def prior_of(self, x_BX: Tensor, t_BT: Tensor) -> LatentNormal:
        """p(z|x,t), p(z|x) or N(0,I), as configured (M1)."""
        prior: LatentNormal = self.prior(self.standardise_x(x_BX), self.standardise_t(t_BT))
        return prior

    def paired(self, eta_BZ: Tensor, t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
        """The latent noise [B,Z] under t' of the subjects whose noise under t is η (R of M6)."""
        if self.pairing is None:
            return eta_BZ
        eta_new_BZ: Tensor = self.pairing(eta_BZ, t_BT, t_new_BT)
        return eta_new_BZ

    def forward(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor) -> ModelOutput:
        """One training pass with factual attributes and standard normal noise [B, Z]."""
        posterior, z_BZ = self.encode(y_BCHW, x_BX, t_BT).draw(noise_BZ)
        return ModelOutput(
            posterior=posterior,
            prior=self.prior_of(x_BX, t_BT).at(z_BZ),
            likelihood=self.decode(z_BZ, t_BT, x_BX),
            predicted_BA=None if self.predictor is None else self.predictor(y_BCHW),
        )


def _shift_and_scale(attributes: tuple[Attribute, ...]) -> tuple[Tensor, Tensor]:
    pairs = [attribute.shift_and_scale for attribute in attributes]
    shift = torch.tensor([shift for shift, _ in pairs], dtype=torch.float32)
    scale = torch.tensor([scale for _, scale in pairs], dtype=torch.float32)
    return shift, scale


def _reach(treatments: tuple[Attribute, ...]) -> tuple[Tensor, Tensor]:
    """The bounds to which each treatment is clamped, in raw units; infinite for binary ones."""
    bounds = [(a.low, a.high) if a.kind == "continuous" else (-math.inf, math.inf) for a in treatments]
    low = torch.tensor([low for low, _ in bounds], dtype=torch.float32)
    high = torch.tensor([high for _, high in bounds], dtype=torch.float32)
    return low, high
