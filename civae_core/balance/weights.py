"""Weights of training images that remove the confounding of t by x from the training set (METHOD 4, lever 1).

Inverse weights target the whole population; overlap weights target the subjects who could have been in any arm.

The propensity behind the weights is fitted on the rows that are weighted, not out of fold. It then also removes the
sample's chance imbalance (overlap weights balance the feature means nearly, and exactly without ridge and cap), and
it measured better in both balance and effective sample size. Diagnostics, in contrast, are out of fold.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.balance.propensity import Kind, Propensity, checked_table, fit_propensity
from civae_core.errors import UsageError

_LARGEST_LOG_WEIGHT = 100.0
"""Far beyond any cap; without it, one outlying label could have infinite weight, and all others would become zero."""

WeightKind = Literal["none", "inverse", "overlap"]


def training_weights(
    x_NC: Tensor, t_NT: Tensor, kinds: Sequence[Kind], kind: WeightKind, cap: float
) -> Tensor:
    """One weight per row, float32 [N] of mean 1 and at most `cap`.

    Args:
        x_NC: covariates [N, C]; C may be 0 (inverse weights are then all 1; overlap weights still give the arms about
            the same total weight).
        t_NT: treatments [N, T]; binary ones 0 or 1.
        kinds: kind of each treatment.
        kind: `none`; `inverse`, stabilised: Π_j p(t_j|t_<j) / p(t_j|t_<j,x); or `overlap`.
        cap: largest weight, as a multiple of the mean weight.

    Raises:
        UsageError: overlap weights of a continuous treatment, or a cap below 1.
        DataError: missing or non-finite values, or no rows.
    """
    if cap < 1.0:
        raise UsageError(
            f"loss.weight_cap: {cap:g} is below 1, and the largest weight cannot be below the mean weight",
            hint="use a cap of 5 to 20, or loss.weights: none",
        )
    if kind == "overlap" and "continuous" in kinds:
        raise UsageError(
            "loss.weights: overlap weights are defined for binary treatments only",
            hint="use loss.weights: inverse for a continuous treatment",
        )
    x_NC, t_NT = checked_table(x_NC, t_NT, kinds)
    if kind == "none":
        return torch.ones(len(t_NT))
    propensity = fit_propensity(x_NC, t_NT, kinds)
    if kind == "inverse":
        w_N = inverse_weights(propensity, fit_propensity(x_NC[:, :0], t_NT, kinds), x_NC, t_NT)
    else:
        w_N = overlap_weights(propensity, x_NC, t_NT)
    return capped(w_N, cap).to(torch.float32)


def inverse_weights(propensity: Propensity, marginal: Propensity, x_NC: Tensor, t_NT: Tensor) -> Tensor:
    """Stabilised inverse-propensity weights p(t)/p(t|x), float64 [N]; finite, but neither capped nor normalised.

    Args:
        propensity: p(t|x), fitted with the covariates.
        marginal: p(t), fitted without covariates.
        x_NC: covariates [N, C].
        t_NT: treatments [N, T].
    """
    log_w_N = marginal.log_density(t_NT, x_NC[:, :0]) - propensity.log_density(t_NT, x_NC)
    return log_w_N.clamp(max=_LARGEST_LOG_WEIGHT).exp()


def overlap_weights(propensity: Propensity, x_NC: Tensor, t_NT: Tensor) -> Tensor:
    """Overlap weights of binary treatments, float64 [N] in (0, 1].

    They are 1 − e(x) in the arm t=1 and e(x) in t=0 (Li, Morgan & Zaslavsky 2018); for several treatments
    h(x)/e_arm(x) with h = (Σ_a 1/e_a(x))⁻¹ over the arms a that occur (Li & Li 2019). An arm without any rows is
    left out; otherwise it would draw all the weight to where the model extrapolates it.
    """
    x_NC, t_NT = x_NC.to(torch.float64), t_NT.to(torch.float64)
    arms = {tuple(arm) for arm in t_NT.unique(dim=0).tolist()}
    if len(arms) == 1:
        return torch.ones(len(t_NT), dtype=torch.float64)
    log_inverse_sum_N = torch.full((len(t_NT),), -torch.inf, dtype=torch.float64)

    def add_arms(prefix: tuple[float, ...], log_density_N: Tensor) -> None:
        nonlocal log_inverse_sum_N
        if len(prefix) == len(propensity.stages):
            log_inverse_sum_N = torch.logaddexp(log_inverse_sum_N, -log_density_N)
            return
        before_NJ = torch.tensor(prefix, dtype=torch.float64).expand(len(x_NC), -1)
        inputs_NC = torch.cat([x_NC, before_NJ], dim=1)
        logit_N = propensity.stages[len(prefix)].location(inputs_NC)
        for value in (0.0, 1.0):
            longer = (*prefix, value)
            if any(arm[: len(longer)] == longer for arm in arms):
                add_arms(longer, log_density_N + F.logsigmoid(logit_N if value else -logit_N))

    add_arms((), torch.zeros(len(x_NC), dtype=torch.float64))
    return (-propensity.log_density(t_NT, x_NC) - log_inverse_sum_N).exp()


def capped(w_N: Tensor, cap: float) -> Tensor:
    """Clip positive weights [N] and normalise them to mean 1, so that none exceeds `cap` (at least 1).

    The threshold is a multiple of the mean *after* clipping, found in closed form from the sorted weights.
    """
    count = len(w_N)
    sorted_N = w_N.to(torch.float64).sort(descending=True).values
    # With the k largest clipped to c, the mean is (k c + rest_k)/N, so c = cap·mean = cap·rest_k/(N − cap·k).
    clipped_N = torch.arange(count, dtype=torch.float64)
    rest_N = sorted_N.flip(0).cumsum(0).flip(0)
    room_N = count - cap * clipped_N
    threshold_N = torch.where(room_N > 0, cap * rest_N / room_N, torch.full_like(rest_N, torch.inf))
    enough = (sorted_N <= threshold_N).nonzero()
    threshold = threshold_N[enough[0, 0]]
    w_N = w_N.to(torch.float64).clamp(max=float(threshold))
    return w_N / w_N.mean()


def effective_sample_size(w_N: Tensor) -> float:
    """Kish's effective sample size (Σw)²/Σw², between 1 and N: as precise as that many equally weighted rows."""
    w_N = w_N.to(torch.float64)
    return float(w_N.sum().square() / w_N.square().sum())
