"""The design matrix of the propensity models: standardised inputs and, for few inputs, their products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_INPUTS_FOR_PRODUCTS = 12
"""The number of pairwise products grows quadratically; with more inputs than this, they are left out."""

ROWS_AT_ONCE = 2**12
"""Rows whose features are computed at a time: those of a whole table take many times its memory."""

_NEGLIGIBLE_STD = 1e-12
"""In units of an input's largest absolute value: a smaller spread is nothing but rounding."""
_NEGLIGIBLE_FEATURE_STD = 1e-8
"""Features are made of standardised inputs, so they have no units."""


@dataclass(frozen=True)
class Design:
    """A fitted map from inputs [N, C] to features [N, 1 + F]; the first column is the constant 1.

    `pairs` [2, P] lists the columns that are multiplied: each pair once, and the square of every column with
    more than two values (the square of a binary column says nothing new). Columns that are constant in the
    rows the design was fitted on are dropped; all others have mean 0 and standard deviation 1 there.
    """

    input_mean_C: Tensor
    input_std_C: Tensor
    pairs: Tensor
    kept_F: Tensor
    mean_F: Tensor
    std_F: Tensor

    @property
    def features(self) -> int:
        """Number of columns, without the constant."""
        return int(self.kept_F.numel())

    def __call__(self, x_NC: Tensor) -> Tensor:
        """Float64 features [N, 1 + F] of inputs [N, C]."""
        raw_FN = _raw_features(x_NC, self.input_mean_C, self.input_std_C, self.pairs).T[self.kept_F]
        features_FN = (raw_FN - self.mean_F[:, None]) / self.std_F[:, None]
        return torch.cat([raw_FN.new_ones(1, len(x_NC)), features_FN]).T


def fit_design(x_NC: Tensor) -> Design:
    """Fit the design to float64 inputs [N, C]; C may be 0, N must not be."""
    inputs = x_NC.shape[1]
    input_mean_C, input_std_C = _mean_and_std(x_NC)
    largest_C = torch.linalg.vector_norm(x_NC, torch.inf, dim=0)
    input_std_C[input_std_C <= _NEGLIGIBLE_STD * largest_C] = torch.inf  # makes a constant input exactly 0
    pairs = torch.empty(2, 0, dtype=torch.int64)
    if 0 < inputs <= MAX_INPUTS_FOR_PRODUCTS:
        pairs = torch.triu_indices(inputs, inputs)
        many_valued_C = torch.tensor(
            [bool(((x_N != x_N.min()) & (x_N != x_N.max())).any()) for x_N in x_NC.T]
        )
        pairs = pairs[:, (pairs[0] != pairs[1]) | many_valued_C[pairs[0]]]
    mean_F, std_F = _mean_and_std(x_NC, lambda x_MC: _raw_features(x_MC, input_mean_C, input_std_C, pairs))
    kept_F = (std_F > _NEGLIGIBLE_FEATURE_STD).nonzero().squeeze(1)
    return Design(input_mean_C, input_std_C, pairs, kept_F, mean_F[kept_F], std_F[kept_F])


def _raw_features(x_NC: Tensor, mean_C: Tensor, std_C: Tensor, pairs: Tensor) -> Tensor:
    z_CN = ((x_NC - mean_C) / std_C).T.contiguous()  # contiguous columns are selected several times as fast
    return torch.cat([z_CN, z_CN[pairs[0]] * z_CN[pairs[1]]]).T


def _mean_and_std(
    x_NC: Tensor, features: Callable[[Tensor], Tensor] = lambda x_MC: x_MC
) -> tuple[Tensor, Tensor]:
    """Population mean and standard deviation of each feature; accepts zero columns, for which Tensor.std warns."""
    parts = x_NC.split(ROWS_AT_ONCE)
    mean_F = torch.stack([features(x_MC).sum(0) for x_MC in parts]).sum(0) / len(x_NC)
    squares = [(features(x_MC) - mean_F).square().sum(0) for x_MC in parts]
    return mean_F, (torch.stack(squares).sum(0) / len(x_NC)).sqrt()
