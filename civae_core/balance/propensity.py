"""How the treatments were assigned: p(t|x) = p(t_1|x) p(t_2|x,t_1) …, fitted to the attribute table.

Binary treatments are fitted by ridge logistic regression, continuous ones by ridge linear regression with a Gaussian
residual of constant variance; both use the features of `design.py`. Everything runs in float64 on the CPU.
Shape suffixes: N rows, C covariates, T treatments, F features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from civae_core.balance.design import ROWS_AT_ONCE, Design, fit_design
from civae_core.errors import DataError
from civae_core.ranking import auc

Kind = Literal["binary", "continuous"]

_MAX_NEWTON_STEPS = 100
_SMALLEST_RESIDUAL_STD = 1e-3
"""In units of the treatment's own std; even a treatment that x determines exactly then has a finite density."""


@dataclass(frozen=True)
class Stage:
    """One factor of the chain, p(t_j | x, t_1 … t_{j−1}).

    `weights_F` [1 + F] gives a binary treatment's logit or a continuous treatment's mean; `residual_std` is
    the standard deviation about that mean, in the treatment's own units (unused for a binary one).
    """

    kind: Kind
    design: Design
    weights_F: Tensor
    residual_std: float = 1.0

    def location(self, inputs_NC: Tensor) -> Tensor:
        """The logit (binary) or the mean (continuous) [N]."""
        return torch.cat([self.design(part_MC) @ self.weights_F for part_MC in inputs_NC.split(ROWS_AT_ONCE)])

    def log_density(self, t_N: Tensor, inputs_NC: Tensor) -> Tensor:
        """log p(t_j | …) [N], in nats."""
        location_N = self.location(inputs_NC)
        if self.kind == "binary":
            return F.logsigmoid((2.0 * t_N - 1.0) * location_N)
        standardised_N = (t_N - location_N) / self.residual_std
        return -0.5 * standardised_N.square() - math.log(self.residual_std * math.sqrt(2.0 * math.pi))


@dataclass(frozen=True)
class Propensity:
    """A fitted p(t|x); the order of treatments is that of the columns it was fitted on."""

    stages: tuple[Stage, ...]

    def mean(self, x_NC: Tensor) -> Tensor:
        """E[t_1|x] [N]: the first treatment's probability (binary) or expectation (continuous)."""
        location_N = self.stages[0].location(_as_float64(x_NC))
        return torch.sigmoid(location_N) if self.stages[0].kind == "binary" else location_N

    def log_density(self, t_NT: Tensor, x_NC: Tensor) -> Tensor:
        """log p(t|x) [N] of all treatments jointly, in nats."""
        t_NT, x_NC = _as_float64(t_NT), _as_float64(x_NC)
        total_N = torch.zeros(len(t_NT), dtype=torch.float64)
        for j, stage in enumerate(self.stages):
            total_N = total_N + stage.log_density(t_NT[:, j], _inputs(x_NC, t_NT, j))
        return total_N


@dataclass(frozen=True)
class CrossFit:
    """Propensities fitted without the rows they are applied to, as (held-out rows, model of the other rows)."""

    folds: tuple[tuple[Tensor, Propensity], ...]

    def mean(self, x_NC: Tensor) -> Tensor:
        """Out-of-fold E[t_1|x], float64 [N] in the order of the table; for a binary treatment the propensity e(x)."""
        values_N = torch.empty(sum(len(rows_M) for rows_M, _ in self.folds), dtype=torch.float64)
        for rows_M, model in self.folds:
            values_N[rows_M] = model.mean(x_NC[rows_M])
        return values_N

    def auc(self, x_NC: Tensor, t_N: Tensor) -> float | None:
        """Within-fold AUC of the first treatment (binary), averaged over pairs of rows; None without a pair.

        Pooled over folds, it would fall below 0.5 for a randomised treatment: a fold with many treated rows leaves
        few for the model that predicts it, which then expects few.
        """
        total, pairs = 0.0, 0
        for rows_M, model in self.folds:
            t_M = t_N[rows_M]
            ones = int((t_M > 0.5).sum())
            if count := ones * (len(t_M) - ones):
                total, pairs = total + count * auc(model.mean(x_NC[rows_M]), t_M), pairs + count
        return total / pairs if pairs else None


def fit_propensity(x_NC: Tensor, t_NT: Tensor, kinds: Sequence[Kind], *, ridge: float = 1.0) -> Propensity:
    """Fit p(t|x) by the chain rule.

    Args:
        x_NC: covariates [N, C], binary or continuous in any units; C may be 0 (then p(t) is fitted).
        t_NT: treatments [N, T]; binary ones 0 or 1.
        kinds: kind of each treatment.
        ridge: precision of the coefficients' Gaussian prior, in standardised features (the constant is free).
            It does not grow with N, so large tables are hardly shrunk, while fits stay finite under separation.

    Raises:
        DataError: missing or non-finite values, no rows, or a binary treatment with values other than 0 and 1.
    """
    x_NC, t_NT = checked_table(x_NC, t_NT, kinds)
    stages = []
    for j, kind in enumerate(kinds):
        inputs_NC = _inputs(x_NC, t_NT, j)
        fit = _fit_binary if kind == "binary" else _fit_continuous
        stages.append(fit(fit_design(inputs_NC), inputs_NC, t_NT[:, j], ridge))
    return Propensity(tuple(stages))


def cross_fit(
    x_NC: Tensor, t_NT: Tensor, kinds: Sequence[Kind], *, folds: int = 5, seed: int = 0
) -> CrossFit:
    """Fit one propensity for each of `folds` random parts of the table, on the rows outside that part.

    If the first treatment is binary, the parts are stratified by arm. A table of fewer than two rows is its own fold.
    Arguments and errors are those of `fit_propensity`.
    """
    x_NC, t_NT = checked_table(x_NC, t_NT, kinds)
    order_N = torch.randperm(len(t_NT), generator=torch.Generator().manual_seed(seed))
    if kinds[0] == "binary":
        order_N = order_N[t_NT[order_N, 0].argsort(stable=True)]
    parts = [order_N[first::folds] for first in range(min(folds, len(order_N)))]
    if len(parts) == 1:
        return CrossFit(((order_N, fit_propensity(x_NC, t_NT, kinds)),))
    fitted = []
    for held_out in range(len(parts)):
        rest = torch.cat([part for index, part in enumerate(parts) if index != held_out])
        fitted.append((parts[held_out], fit_propensity(x_NC[rest], t_NT[rest], kinds)))
    return CrossFit(tuple(fitted))


def checked_table(x_NC: Tensor, t_NT: Tensor, kinds: Sequence[Kind]) -> tuple[Tensor, Tensor]:
    """Check covariates and treatments, and return them as float64 on the CPU.

    Raises:
        DataError: as listed under `fit_propensity`.
        ValueError: the shapes do not match.
    """
    x_NC, t_NT = _as_float64(x_NC), _as_float64(t_NT)
    if t_NT.shape != (len(x_NC), len(kinds)):
        raise ValueError(f"treatments {tuple(t_NT.shape)} do not fit {len(x_NC)} rows of {len(kinds)} kinds")
    if not len(t_NT):
        raise DataError(
            "the propensity cannot be fitted: the table has no rows",
            hint="rows are needed where all treatments and covariates are known: complete the table, or name fewer "
            "of them",
        )
    for name, table in (("covariates", x_NC), ("treatments", t_NT)):
        if bool(table.sum().isfinite()):  # nearly always; checked without a second table
            continue
        missing = int((~table.isfinite()).any(dim=1).sum())
        if missing:
            raise DataError(
                f"the propensity cannot be fitted: {missing} rows have missing or non-finite {name}",
                hint="omit rows with missing labels, or complete the table",
            )
    for j, kind in enumerate(kinds):
        if kind == "binary" and not bool(((t_NT[:, j] == 0) | (t_NT[:, j] == 1)).all()):
            raise DataError(
                f"the propensity cannot be fitted: binary treatment {j} has values other than 0 and 1",
                hint="write it as 0 and 1, or treat it as continuous",
            )
    return x_NC, t_NT


def _as_float64(values: Tensor) -> Tensor:
    return values.detach().to("cpu").to(torch.float64)


def _inputs(x_NC: Tensor, t_NT: Tensor, j: int) -> Tensor:
    """Inputs for the jth treatment: the covariates and the treatments before it."""
    return torch.cat([x_NC, t_NT[:, :j]], dim=1) if j else x_NC


def _parts(design: Design, inputs_NC: Tensor, t_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [M, 1 + F] and treatments [M], some rows at a time."""
    for inputs_MC, t_M in zip(inputs_NC.split(ROWS_AT_ONCE), t_N.split(ROWS_AT_ONCE), strict=True):
        yield design(inputs_MC), t_M


class _Penalised(NamedTuple):
    """Ridge-penalised negative log-likelihood of a logistic regression at some weights, and its derivatives."""

    value: Tensor
    gradient_F: Tensor
    hessian_FF: Tensor


def _penalised(
    design: Design, inputs_NC: Tensor, t_N: Tensor, weights_F: Tensor, penalty_F: Tensor
) -> _Penalised:
    value = 0.5 * (penalty_F * weights_F.square()).sum()
    gradient_F, hessian_FF = penalty_F * weights_F, torch.diag(penalty_F)
    for d_MF, t_M in _parts(design, inputs_NC, t_N):
        logit_M = d_MF @ weights_F
        p_M = torch.sigmoid(logit_M)
        value = value + F.softplus((1.0 - 2.0 * t_M) * logit_M).sum()
        gradient_F = gradient_F + d_MF.T @ (p_M - t_M)
        hessian_FF = hessian_FF + (d_MF * (p_M * (1.0 - p_M))[:, None]).T @ d_MF
    return _Penalised(value, gradient_F, hessian_FF)


def _fit_binary(design: Design, inputs_NC: Tensor, t_N: Tensor, ridge: float) -> Stage:
    """Ridge logistic regression by Newton's method with step halving."""
    count, ones = len(t_N), float(t_N.sum())
    # Half a pseudo-observation in each arm keeps the start finite; if one arm is empty, it is also the solution.
    weights_F = torch.zeros(1 + design.features, dtype=torch.float64)
    weights_F[0] = math.log((ones + 0.5) / (count - ones + 0.5))
    if ones in (0.0, float(count)):
        return Stage("binary", design, weights_F)
    penalty_F = torch.full_like(weights_F, ridge)
    penalty_F[0] = 0.0
    now = _penalised(design, inputs_NC, t_N, weights_F, penalty_F)
    for _ in range(_MAX_NEWTON_STEPS):
        if float(now.gradient_F.abs().max()) < 1e-9 * count:
            break
        step_F = torch.linalg.solve(_regular(now.hessian_FF), now.gradient_F)
        scale = 1.0
        new = _penalised(design, inputs_NC, t_N, weights_F - step_F, penalty_F)
        while scale > 1e-6 and not float(new.value) <= float(now.value):
            scale /= 2.0
            new = _penalised(design, inputs_NC, t_N, weights_F - scale * step_F, penalty_F)
        if scale <= 1e-6:
            break
        weights_F, now = weights_F - scale * step_F, new
    return Stage("binary", design, weights_F)


def _fit_continuous(design: Design, inputs_NC: Tensor, t_N: Tensor, ridge: float) -> Stage:
    """Ridge linear regression; the residual variance is corrected for the number of features used."""
    # The prior's precision is in units of 1/residual variance, so the treatment's units do not matter.
    penalty_F = torch.full((1 + design.features,), ridge, dtype=torch.float64)
    penalty_F[0] = 0.0
    gram_FF, moment_F = torch.diag(penalty_F), torch.zeros_like(penalty_F)
    for d_MF, t_M in _parts(design, inputs_NC, t_N):
        gram_FF = gram_FF + d_MF.T @ d_MF
        moment_F = moment_F + d_MF.T @ t_M
    weights_F = torch.linalg.solve(_regular(gram_FF), moment_F)
    residual_N = t_N - Stage("continuous", design, weights_F).location(inputs_NC)
    degrees = max(len(t_N) - 1 - design.features, 1)
    residual_std = float((residual_N.square().sum() / degrees).sqrt())
    own_std = float(t_N.std(correction=0)) or 1.0
    return Stage("continuous", design, weights_F, max(residual_std, _SMALLEST_RESIDUAL_STD * own_std))


def _regular(matrix_FF: Tensor) -> Tensor:
    """The matrix with a larger diagonal, so that rounding cannot make it singular (free constant, separation)."""
    floor = 1e-12 * max(float(matrix_FF.diagonal().max()), 1.0)
    return matrix_FF + floor * torch.eye(len(matrix_FF), dtype=matrix_FF.dtype)
