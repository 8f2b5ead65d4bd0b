"""The network: blocks, encoder, decoder, prior, and the β-Intact-VAE that joins them. It knows no loss."""

from civae_core.model.decoder import Decoder, PixelNormal
from civae_core.model.distributions import DiagonalNormal, standard_normal
from civae_core.model.encoder import Encoder
from civae_core.model.intact_vae import IntactVAE, ModelOutput
from civae_core.model.predictor import AttributePredictor
from civae_core.model.prior import Prior

__all__ = [
    "AttributePredictor",
    "Decoder",
    "DiagonalNormal",
    "Encoder",
    "IntactVAE",
    "ModelOutput",
    "PixelNormal",
    "Prior",
    "standard_normal",
]
