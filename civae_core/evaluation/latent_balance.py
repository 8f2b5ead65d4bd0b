"""Balance of the latent code: does what inference carries over to t' still reveal the treatment? (METHOD 6)

η, the latent noise standardised under the prior (M5), is what a counterfactual keeps of its subject; with N(0,I) it
is z. Given the covariates, it should say nothing about the treatment. The comparison is always conditional on x:
where x and t are associated, z and t may be, too.
"""

from typing import Any

import torch
from torch import Tensor

from civae_core.balance import cross_fit
from civae_core.balance.design import MAX_INPUTS_FOR_PRODUCTS, fit_design
from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import TrainedModel

MOST_IMAGES = 4_000
BATCH = 64
_RIDGE = 0.1
"""Penalty that keeps a covariate which is constant in one arm from counting, and hardly shrinks any other."""
_FEWEST_IN_AN_ARM = 30


def latent_balance(
    method: TrainedModel,
    data: PreparedData,
    chosen: LabelledRows,
    treatment: int,
    device: torch.device,
    seed: int,
) -> dict[str, Any]:
    """The entry `balance` for one binary treatment; empty if an arm has fewer than 30 images more than covariates.

    `auc_x` is the held-out AUC of predicting the treatment from the covariates, `auc_x_and_z` from covariates and η
    together, and `difference` the second minus the first: 0 is ideal, and below 0 is the cost of fitting more inputs.
    The classifier is linear in η and the same for every x (no products of x and η), so the difference is a lower
    bound on what η reveals, and lower still with few images and many dimensions.
    `kl_between_arms` is the symmetrised divergence of the two arms' η given x, in nats, by the function of that name.

    Args:
        chosen: held-out rows.
        treatment: index of the treatment.
    """
    chosen = chosen[evenly_spread(len(chosen), MOST_IMAGES)]
    t_N = chosen.t_NT[:, treatment].double()
    smallest = min(int((t_N == arm).sum()) for arm in (0, 1))
    if smallest - chosen.x_NX.shape[1] < _FEWEST_IN_AN_ARM:
        return {}
    eta_NZ = abducted_noise(method, data, chosen, device).double()
    x_NX = chosen.x_NX.double()
    # Both fits see the covariates in the same form, products included: a form that only one of them had would pass
    # for something that z reveals, or hide it.
    features_NF = fit_design(x_NX)(x_NX)[:, 1:]
    auc_x = _held_out_auc(features_NF, t_N, seed)
    auc_both = _held_out_auc(torch.cat([features_NF, eta_NZ], dim=1), t_N, seed)
    return {
        "balance": {
            "auc_x": auc_x,
            "auc_x_and_z": auc_both,
            "difference": auc_both - auc_x,
            "kl_between_arms": kl_between_arms(eta_NZ, x_NX, t_N),
        }
    }


def abducted_noise(
    method: TrainedModel, data: PreparedData, chosen: LabelledRows, device: torch.device
) -> Tensor:
    """η [N, Z] of (M5), at the posterior mean."""
    eta = KeptRows()
    for start in range(0, len(chosen), BATCH):
        y_BCHW, x_BX, t_BT = chosen[start : start + BATCH].read(data, device)
        eta.add(abduct(method.stored.model, y_BCHW, x_BX, t_BT).eta_BZ)
    return eta.all


def kl_between_arms(eta_NZ: Tensor, x_NX: Tensor, t_N: Tensor) -> float:
    """½ KL(1‖0) + ½ KL(0‖1) in nats of Gaussians for η given x and arm, averaged over all images' x.

    Each arm has a ridge regression of η on x, with its own residual variance in each dimension; dimensions are taken
    as independent, as in the posterior. The value expected if the arms do not differ, due to noise in the fitted
    means and variances, is subtracted. A balanced code therefore scores about 0, and may score slightly below.

    Args:
        eta_NZ: float64.
        x_NX: covariates; X may be 0.
        t_N: 0 or 1.

    Raises:
        ValueError: an arm has hardly more images than there are covariates.
    """
    scale_X = x_NX.std(0).clamp(min=1e-8) if x_NX.shape[1] else x_NX.new_ones(0)
    inputs_NX = torch.cat([x_NX.new_ones(len(x_NX), 1), (x_NX - x_NX.mean(0)) / scale_X], dim=1)
    penalty_XX = _RIDGE * torch.eye(inputs_NX.shape[1], dtype=torch.float64)
    penalty_XX[0, 0] = 0.0
    means, variances, noise_N, ratio = [], [], x_NX.new_zeros(len(x_NX)), 0.0
    for arm in (0, 1):
        rows_MX, target_MZ = inputs_NX[t_N == arm], eta_NZ[t_N == arm]
        solved_XM = torch.linalg.solve(rows_MX.T @ rows_MX + penalty_XX, rows_MX.T)
        residual_MZ = target_MZ - rows_MX @ (solved_XM @ target_MZ)
        fitted_XX = solved_XM @ rows_MX  # has the same traces as the hat matrix H
        freedom = float(len(rows_MX) - 2 * fitted_XX.trace() + (fitted_XX @ fitted_XX).trace())  # tr (I − H)²
        if freedom <= 2:
            raise ValueError(f"arm {arm} has too few images ({len(rows_MX)}) for {x_NX.shape[1]} covariates")
        variances.append((residual_MZ.square().sum(0) / freedom).clamp(min=1e-12))
        # The expectation of 1/s² is ν/(ν−2) times 1/σ², which inflates distances and the ratio of two variances.
        ratio += 0.5 * freedom / (freedom - 2)
        means.append(inputs_NX @ (solved_XM @ target_MZ))
        # Variance of a fitted mean, in units of the residual variance: the same for every dimension.
        noise_N = noise_N + ((inputs_NX @ (solved_XM @ solved_XM.T)) * inputs_NX).sum(1)
    inverse_Z = 0.5 * (1 / variances[0] + 1 / variances[1])
    apart_N = ((means[1] - means[0]).square() * inverse_Z).sum(1)
    spread_Z = 0.5 * (variances[0] / variances[1] + variances[1] / variances[0])
    by_chance_N = noise_N * ratio * eta_NZ.shape[1]
    return float(0.5 * (apart_N - by_chance_N).mean() + 0.5 * (spread_Z - ratio).sum())


def _held_out_auc(inputs_NC: Tensor, t_N: Tensor, seed: int) -> float:
    """AUC of predictions that are linear in the inputs and fitted without the image itself; 0.5 without inputs."""
    if not inputs_NC.shape[1]:
        return 0.5
    # With this many inputs the propensity model adds no products of its own; it drops constant ones.
    padding = max(MAX_INPUTS_FOR_PRODUCTS + 1 - inputs_NC.shape[1], 0)
    inputs_NC = torch.nn.functional.pad(inputs_NC, (0, padding))
    found = cross_fit(inputs_NC, t_N[:, None], ["binary"], seed=seed).auc(inputs_NC, t_N)
    assert found is not None, "an arm has more than a handful of images"
    return found
