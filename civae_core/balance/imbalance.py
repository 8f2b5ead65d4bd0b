"""How strongly covariates are associated with a treatment, without or with weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from civae_core.balance.propensity import Kind

LITTLE_IMBALANCE, LARGE_IMBALANCE = 0.1, 0.25
"""Usual bounds on a standardised mean difference after weighting; here they are also used for a correlation."""
_ROUNDING = 1e-12
"""Share of the largest values below which a difference or a spread is nothing but rounding."""
MEASURE: dict[Kind, str] = {"binary": "standardised difference", "continuous": "correlation"}
"""The name of what `imbalance` measures, for use in sentences."""


def imbalance(x_NC: Tensor, t_N: Tensor, w_N: Tensor, kind: Kind) -> list[float | None]:
    """The weighted imbalance of each of C covariates, signed; None where it is undefined.

    Binary treatment: standardised mean difference (mean_1 − mean_0) / sqrt((var_1 + var_0)/2), with unweighted
    variances whatever the weights; undefined where a covariate is constant in each arm and differs between them.
    Continuous treatment: weighted correlation with the treatment.

    Args:
        x_NC: covariates [N, C], float64; C may be 0.
        t_N: the treatment [N], float64; 0 and 1 if binary, both of which occur.
        w_N: weights [N], float64, with any positive sum in each arm.
        kind: kind of the treatment.
    """
    return (_mean_differences if kind == "binary" else _correlations)(x_NC, t_N, w_N)


def largest(names: Sequence[str], values: Sequence[float | None]) -> tuple[str, float] | None:
    """The name and the size of the largest imbalance, ∞ if one is undefined; None without covariates."""
    sizes = [math.inf if value is None else abs(value) for value in values]
    return max(zip(names, sizes, strict=True), key=lambda pair: pair[1], default=None)


def largest_text(kind: Kind, name: str, size: float) -> str:
    """Text such as `largest standardised difference 0.02, of Male`."""
    return (
        f"largest {MEASURE[kind]} {size:.2f}, of {name}"
        if math.isfinite(size)
        else f"{name} alone tells them apart"
    )


def _mean_differences(x_NC: Tensor, t_N: Tensor, w_N: Tensor) -> list[float | None]:
    def mean(arm: int) -> Tensor:
        of_arm_N = w_N * (t_N == arm)
        return (of_arm_N / of_arm_N.sum()) @ x_NC

    def variance(arm: int) -> Tensor:
        """Variance in one arm, computed a column at a time, because a second table would take much memory."""
        columns = (x_N[t_N == arm] for x_N in x_NC.T)
        return x_NC.new_tensor([(x_M - x_M.mean()).square().mean() for x_M in columns])

    return _ratio(mean(1) - mean(0), ((variance(0) + variance(1)) / 2).sqrt(), _ROUNDING * _largest(x_NC))


def _correlations(x_NC: Tensor, t_N: Tensor, w_N: Tensor) -> list[float | None]:
    share_N = w_N / w_N.sum()
    centred_NC, centred_N = x_NC - share_N @ x_NC, t_N - share_N @ t_N
    covariance_C = (share_N * centred_N) @ centred_NC
    scale_C = ((share_N @ centred_NC.square()) * (share_N @ centred_N.square())).sqrt()
    return _ratio(covariance_C, scale_C, _ROUNDING * _largest(x_NC) * _largest(t_N))


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value of each column, or of a row [N]."""
    return torch.linalg.vector_norm(values, torch.inf, dim=0)


def _ratio(numerator_C: Tensor, scale_C: Tensor, zero_C: Tensor) -> list[float | None]:
    """Quotients; where the scale is 0, they are 0 if the numerator is 0 too, and None (undefined) otherwise.

    What is at most `zero_C` counts as 0.
    """
    each = zip(numerator_C.tolist(), scale_C.tolist(), zero_C.tolist(), strict=True)
    return [n / s if s > zero else (0.0 if abs(n) <= zero else None) for n, s, zero in each]
