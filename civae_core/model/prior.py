"""The prior of z: learned p(z|x,t), balanced p(z|x), or N(0,I) (M1)."""

import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model.distributions import DiagonalNormal, standard_normal
from civae_core.model.mlp import mlp

RANK = 2
"""Rank of the interaction between x and t with `prior_structure: low_rank`."""


class Prior(nn.Module):
    """p(z|x,t) = N(h(x,t), diag k(x,t)²); `prior: x` leaves t out, `prior: standard` is N(0,I).

    A learned prior is initialised to N(0,I): its last layer is zero. `prior_structure` sets how h(x,t) and log k(x,t)
    combine x and t (METHOD 4, lever 3):

        free       h(x,t)
        additive   h_x(x) + h_t(t)                        t acts alike for every x, whether seen together or not
        low_rank   h_x(x) + h_t(t) + Σ_r u_r(x) v_r(t)    r = 1 … RANK, scalars u_r(x) and vectors v_r(t)

    Args:
        config: kind and structure of the prior, hidden units, latent size.
        treatments, covariates: how many there are; either may be 0.
    """

    def __init__(self, config: ModelConfig, treatments: int, covariates: int) -> None:
        super().__init__()
        self.kind = config.prior
        self.latent = config.dimensions
        inputs = {"xt": treatments + covariates, "x": covariates}.get(self.kind, 0)
        # Without inputs, a single input of zeros is used: the network then is a learned constant.
        self.inputs = inputs
        self.layers: nn.Module | None = None
        if self.kind == "standard":
            return
        hidden, outputs = config.prior_hidden, 2 * config.latent
        if self.kind == "xt" and covariates and config.prior_structure != "free":
            rank = RANK if config.prior_structure == "low_rank" else 0
            self.layers = JoinedParts(treatments, covariates, hidden, outputs, rank)
        else:
            self.layers = mlp(max(inputs, 1), hidden, outputs)

    def forward(self, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """The prior of z [B,Z], given standardised covariates [B,X] and treatments [B,T]."""
        if self.layers is None:
            return standard_normal(t_BT.shape[0], self.latent, like=t_BT)
        if self.inputs == 0:
            a_BA = t_BT.new_zeros(t_BT.shape[0], 1)
        else:
            a_BA = torch.cat([t_BT, x_BX], dim=1) if self.kind == "xt" else x_BX
        return DiagonalNormal.from_parameters(self.layers(a_BA))


class JoinedParts(nn.Module):
    """h_x(x) + h_t(t) + Σ_r u_r(x) v_r(t): as a matrix of x by (t, output), its interaction has rank `rank`.

    Args:
        treatments, covariates: how many there are, at least one of each.
        hidden: units in each hidden layer.
        outputs: number P of outputs, mean and log-scale of all latents.
        rank: R; with 0 there is no interaction.
    """

    def __init__(self, treatments: int, covariates: int, hidden: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.treatments, self.rank, self.outputs = treatments, rank, outputs
        self.of_x = mlp(covariates, hidden, outputs)
        self.of_t = mlp(treatments, hidden, outputs * (1 + rank))
        # Not initialised to zero, or neither factor of the product would ever get a gradient.
        self.strengths = mlp(covariates, hidden, rank, zero=False) if rank else None

    def forward(self, a_BA: Tensor) -> Tensor:
        """Outputs [B, P] for treatments and covariates [B, T + X]."""
        t_BT, x_BX = a_BA[:, : self.treatments], a_BA[:, self.treatments :]
        sum_BP, *ways_BP = self.of_t(t_BT).split(self.outputs, dim=1)
        sum_BP = sum_BP + self.of_x(x_BX)
        if self.strengths is not None:
            u_BR = self.strengths(x_BX)
            for r, v_BP in enumerate(ways_BP):
                sum_BP = sum_BP + u_BR[:, r, None] * v_BP
        return sum_BP
