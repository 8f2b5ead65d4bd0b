"""The prior of z: learned p(z|x,t), balanced p(z|x), or N(0,I) (M1)."""

import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model.distributions import DiagonalNormal, standard_normal


class Prior(nn.Module):
    """p(z|x,t) = N(h(x,t), diag k(x,t)²); `prior: x` leaves t out, `prior: standard` is N(0,I).

    A learned prior starts at N(0,I): its last layer is zero.
    """

    def __init__(self, config: ModelConfig, treatments: int, covariates: int) -> None:
        super().__init__()
        self.kind = config.prior
        self.latent = config.latent
        inputs = {"xt": treatments + covariates, "x": covariates}.get(self.kind, 0)
        # With nothing to look at, one input of zeros leaves a learned constant, the biases.
        self.inputs = inputs
        self.layers: nn.Sequential | None = None
        if self.kind != "standard":
            last = nn.Linear(config.prior_hidden, 2 * config.latent)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.layers = nn.Sequential(
                nn.Linear(max(inputs, 1), config.prior_hidden),
                nn.SiLU(),
                nn.Linear(config.prior_hidden, config.prior_hidden),
                nn.SiLU(),
                last,
            )

    def forward(self, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """Standardised covariates [B,X] and treatments [B,T] to the prior of z [B,Z]."""
        if self.layers is None:
            return standard_normal(t_BT.shape[0], self.latent, like=t_BT)
        if self.inputs == 0:
            a_BA = t_BT.new_zeros(t_BT.shape[0], 1)
        else:
            a_BA = torch.cat([t_BT, x_BX], dim=1) if self.kind == "xt" else x_BX
        return DiagonalNormal.from_parameters(self.layers(a_BA))
