"""The objective: pure functions from a model's output to a loss in nats per image.

(M4)  L = −E_q[log p(y|z,t)] + β · KL(q(z|x,y,t) ‖ p(z|x,t)), summed over pixels and latent dimensions,
averaged over the batch. Which prior stands in the KL is the model's matter. β is one number, or one for each latent
dimension, where the grids of a z of several scales have their own. Penalties (`civae_core.penalties`), where any are
on, are added with their weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute
from civae_core.config.schema import LossConfig, Objective
from civae_core.model import ModelOutput
from civae_core.penalties.free_bits import charged_kl
from civae_core.penalties.surprise import surprises


@dataclass(frozen=True)
class LossTerms:
    """Scalars averaged over the batch, in nats per image unless said otherwise."""

    loss: Tensor
    """What is minimised, but for penalties."""
    reconstruction: Tensor
    """−log p(y|z,t), unweighted."""
    kl: Tensor
    """KL(q ‖ prior), unweighted and without β."""
    squared_error: Tensor
    """Mean squared error per pixel and channel of f(z,t), of images in [0,1]."""


def negative_elbo(
    y_BCHW: Tensor,
    output: ModelOutput,
    beta: float | Tensor,
    weights_B: Tensor | None = None,
    free_bits: float = 0.0,
) -> LossTerms:
    """The β-weighted negative evidence bound (M4), each image counted with its propensity weight.

    Args:
        y_BCHW: images in [0,1].
        output: the model's pass over them.
        beta: weight of the KL term, one number or one for each latent dimension [Z].
        weights_B: weights with mean 1 over the data set; None counts every image once.
        free_bits: nats of each latent dimension that the KL term does not charge.
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
    """The original project's loss: squared error averaged over the pixels of images in [−1,1], plus `kl_scale`
    times the KL to N(0,I) averaged over latent dimensions. Kept as a baseline; it is in no unit of nats.
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
    """The configured objective. `cvae` differs from `intact` only in the model's prior, N(0,I)."""
    if kind == "original":
        if isinstance(beta, Tensor):
            raise TypeError("the original's loss has one kl_scale")
        return original_loss(y_BCHW, output, beta)
    return negative_elbo(y_BCHW, output, beta, weights_B, free_bits)


def penalty(penalties: Mapping[str, Tensor], loss: LossConfig, weights_B: Tensor) -> Tensor:
    """Σ of the penalties [B], each times its weight in the config, images counted as in the bound: a scalar."""
    terms = [getattr(loss, name) * (penalty_B * weights_B).mean() for name, penalty_B in penalties.items()]
    return torch.stack(terms).sum()


def predictor_loss(
    predicted_BA: Tensor, a_BA: Tensor, attributes: Sequence[Attribute], images: int | None = None
) -> Tensor:
    """Cross-entropy of binary attributes plus half the squared standardised error of continuous ones; a scalar.

    Every label that is there counts the same, whatever else its image lacks.

    Args:
        predicted_BA: the predictor's outputs.
        a_BA: raw labels in the same order, NaN where missing.
        images: what the sum over labels is divided by; None is the number of images B.
    """
    known_BA = ~a_BA.isnan()
    # A missing label is any number here: its surprise is finite and counts nothing, and so does its gradient.
    surprise_BA = torch.stack(surprises(predicted_BA, a_BA.nan_to_num(), attributes), dim=1)
    return (surprise_BA * known_BA).sum() / (len(a_BA) if images is None else images)


def _mean_squared_error(y_BCHW: Tensor, output: ModelOutput) -> Tensor:
    return F.mse_loss(output.likelihood.mean_BCHW, y_BCHW)
