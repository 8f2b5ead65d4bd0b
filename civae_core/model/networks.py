"""Builds the configured encoder, decoder and prior: ours, with or without grids of latents, or the original's."""

from torch import nn

from civae_core.config.schema import ModelConfig
from civae_core.model.decoder import Decoder
from civae_core.model.detail import DetailedDecoder
from civae_core.model.encoder import make_vector_encoder
from civae_core.model.original import OriginalDecoder, OriginalEncoder
from civae_core.model.prior import Prior
from civae_core.model.scales import ScaledEncoder, ScaledPrior


def make_encoder(config: ModelConfig, size: int, channels: int, attributes: int) -> nn.Module:
    """A network from image, covariates and treatment to q(z|x,y,t), a `LatentNormal`; arguments as for `Encoder`."""
    if config.network == "original":
        return OriginalEncoder(config, size, channels, attributes)
    vector = make_vector_encoder(config, size, channels, attributes)
    if not config.grids:
        return vector
    return ScaledEncoder(config, vector, size, channels, attributes)


def make_decoder(
    config: ModelConfig, size: int, channels: int, treatments: int, covariates: int
) -> nn.Module:
    """A network from z, treatments and covariates to p(y|z,t[,x]), a `PixelNormal`; arguments as for `Decoder`."""
    kind: type[nn.Module] = Decoder
    if config.network == "original":
        kind = OriginalDecoder
    elif config.decoder == "layered" and config.grids:
        kind = DetailedDecoder
    return kind(config, size, channels, treatments, covariates)


def make_prior(config: ModelConfig, size: int, treatments: int, covariates: int) -> nn.Module:
    """A network from covariates and treatment to p(z|·), a `LatentNormal`; N(0,I) covers all scales at once."""
    if config.grids and config.prior != "standard":
        return ScaledPrior(config, size // 2 ** len(config.stages), treatments, covariates)
    return Prior(config, treatments, covariates)
