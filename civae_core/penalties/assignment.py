"""What x alone says about the treatment, g(x), learned beside the model: the reference for 'conditional on x'.

    p(t|x):   logit P(t=1|x) = g(x)   (binary),   E[t|x] = g(x)   (continuous, standardised)

A penalty relative to g does not charge for what z may rightly say about t, namely all that x says.
"""

import torch
from torch import Tensor, nn

from civae_core.model.mlp import mlp
from civae_core.penalties.surprise import Surprise

HIDDEN = 128
"""Units in each hidden layer of a critic."""


class Assignment(nn.Module):
    """g(x): one output for each treatment."""

    def __init__(self, treatments: int, covariates: int) -> None:
        super().__init__()
        self.covariates = covariates
        self.layers = mlp(max(covariates, 1), HIDDEN, treatments)

    def forward(self, x_BX: Tensor) -> Tensor:
        """Map standardised covariates [B, X] (X may be 0) to g [B, T]."""
        if self.covariates == 0:
            x_BX = x_BX.new_zeros(len(x_BX), 1)
        g_BT: Tensor = self.layers(x_BX).float()
        return g_BT


def residual(g_BT: Tensor, t_BT: Tensor, surprise: Surprise) -> Tensor:
    """t − E[t|x] [B, T]: 0 or 1 minus a probability (binary), or standard deviations (continuous).

    `surprise` is that of the treatments.
    """
    return torch.where(surprise.binary_A, t_BT - torch.sigmoid(g_BT), surprise.standardise(t_BT) - g_BT)
