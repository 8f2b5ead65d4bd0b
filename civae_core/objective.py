"""The objective: pure functions from a model's output to a loss in nats per image.

(M4)  L = −E_q[log p(y|z,t)] + β · KL(q(z|x,y,t) ‖ p(z|x,t)), summed over pixels and latent dimensions,
averaged over the batch. The model decides which prior the KL uses. β is one number or, if z has grids with a β of
their own, one number for each latent dimension. Penalties (`civae_core.penalties`) that are switched on are added
with their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.config.schema import LossConfig, Objective
from civae_core.model import ModelOutput
from civae_core.penalties.free_bits import charged_kl
from civae_core.penalties.surprise import Surprise


@dataclass(frozen=True)
class LossTerms:
    """Scalars averaged over the batch, in nats per image unless stated otherwise."""

    loss: Tensor
    """The quantity to minimise, without penalties."""
    reconstruction: Tensor
    """−log p(y|z,t), unweighted."""
    kl: Tensor
    """KL(q ‖ prior), unweighted and without β."""
    squared_error: Tensor
    """Mean squared error of f(z,t) per pixel and channel, for images in [0,1]."""


def negative_elbo(
    y_BCHW: Tensor,
    output: ModelOutput,
    beta: float | Tensor,
    weights_B: Tensor | None = None,
    free_bits: float = 0.0,
) -> LossTerms:
    """The β-weighted negative ELBO (M4), with each image weighted by its propensity weight.

    Args:
        y_BCHW: images in [0,1].
        output: the model's pass over them.
        beta: weight of the KL term, one number or one for each latent dimension [Z].
        weights_B: weights of the images, with mean 1 over the data set; None gives every image weight 1.
        free_bits: nats per latent dimension that the KL term does not charge.
    """
    nll_B = output.likelihood.negative_log_likelihood(y_BCHW)
    kl_BZ = output.posterior.kl_by_dimension(output.prior)
    kl_B = kl_BZ.sum(dim=1)
    loss_B = output.likelihood.training_loss(y_BCHW)
    if not free_bits:
        loss_B = loss_B + ((beta * kl_BZ).sum(dim=1) if isinstance(beta, Tensor) else beta * kl_B)
    if weights_B is not None:
        loss_B = loss_B * weights_B
    loss = loss_B.mean()
    if free_bits:
        loss = loss + charged_kl(kl_BZ, free_bits, weights_B, beta)
    return LossTerms(loss, nll_B.mean(), kl_B.mean(), _mean_squared_error(y_BCHW, output))


def original_loss(y_BCHW: Tensor, output: ModelOutput, kl_scale: float) -> LossTerms:
    """The original project's loss, kept as a baseline; it is not in nats.

    Squared error averaged over the pixels of images in [−1,1], plus `kl_scale` times the KL to N(0,I) averaged over
    latent dimensions.
    """
    error = _mean_squared_error(y_BCHW, output)
    kl_B = output.posterior.kl(output.prior)
    latent = output.posterior.mean_BZ.shape[1]
    loss = 4 * error + kl_scale * kl_B.mean() / latent
    nll_B = output.likelihood.negative_log_likelihood(y_BCHW)
    return LossTerms(loss, nll_B.mean(), kl_B.mean(), error)


def objective(
    kind: Objective,
    y_BCHW: Tensor,
    output: ModelOutput,
    beta: float | Tensor,
    weights_B: Tensor | None = None,
    free_bits: float = 0.0,
) -> LossTerms:
    """The configured objective. `cvae` has the formula of `intact`; its prior is N(0,I) and its default β is 1."""
    if kind == "original":
        if isinstance(beta, Tensor):
            raise TypeError("the original's loss has one kl_scale")
        return original_loss(y_BCHW, output, beta)
    return negative_elbo(y_BCHW, output, beta, weights_B, free_bits)


def penalty(penalties: Mapping[str, Tensor], loss: LossConfig, weights_B: Tensor) -> Tensor:
    """The sum of the penalties [B], each times its weight in the config, averaged with image weights: a scalar."""
    terms = [getattr(loss, name) * (penalty_B * weights_B).mean() for name, penalty_B in penalties.items()]
    return torch.stack(terms).sum()


def predictor_loss(
    predicted_BA: Tensor, a_BA: Tensor, surprise: Surprise, images: int | None = None
) -> Tensor:
    """Cross-entropy of binary attributes plus half the squared standardised error of continuous ones; a scalar.

    Every known label counts the same, however many other labels its image lacks.

    Args:
        predicted_BA: the predictor's outputs.
        a_BA: raw labels in the same order, NaN where missing.
        surprise: that of the attributes in the columns.
        images: divisor of the sum over labels; None means the number of images B.
    """
    known_BA = ~a_BA.isnan()
    # A missing label becomes 0: its surprise is then finite, and the mask removes it together with its gradient.
    surprise_BA: Tensor = surprise(predicted_BA, a_BA.nan_to_num())
    return (surprise_BA * known_BA).sum() / (len(a_BA) if images is None else images)


def _mean_squared_error(y_BCHW: Tensor, output: ModelOutput) -> Tensor:
    return F.mse_loss(output.likelihood.mean_BCHW, y_BCHW)
