"""The network: blocks, encoder, decoder, prior, and the β-Intact-VAE that joins them. It knows no loss."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Import the exported names on first access, so that `calibrated` can be imported without torch."""
    from importlib import import_module

    places = {
        "AttributePredictor": "predictor",
        "Decoder": "decoder",
        "DiagonalNormal": "distributions",
        "Encoder": "encoder",
        "IntactVAE": "intact_vae",
        "ModelOutput": "intact_vae",
        "PixelNormal": "decoder",
        "Prior": "prior",
        "standard_normal": "distributions",
    }
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{places[name]}"), name)
