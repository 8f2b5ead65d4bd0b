"""Could every kind of subject have been in either arm? Overlap, before anything is trained (METHOD 6).

The propensity behind AUC, histogram and extreme shares is fitted out of fold, so that chance fit does not
pass for confounding. The weights are capped inverse weights of this
treatment alone, whatever a run uses.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from civae_core.balance.propensity import Kind, cross_fit
from civae_core.balance.verdict import Level, verdict
from civae_core.balance.weights import effective_sample_size, training_weights
from civae_core.errors import DataError
from civae_core.ranking import auc

BINS = 20
EXTREME = (0.05, 0.95)
"""A propensity outside this interval means that one arm is nearly empty for such a subject."""
WEIGHT_CAP = 10.0
"""The largest inverse weight, as a multiple of the mean weight."""
CELLS_LISTED = 10
MAX_JOINT_COVARIATES = 6
"""Cells cross all binary covariates up to this many; with more, nearly all joint cells hold a row or none."""


@dataclass(frozen=True)
class CovariateBalance:
    """One covariate's imbalance without and with inverse weights; None where it is undefined.

    Binary treatment: standardised mean difference (mean_1 − mean_0) / sqrt((var_1 + var_0)/2), with the
    unweighted variances both times. Continuous treatment: correlation with the treatment.
    """

    covariate: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Cell:
    """Images of one group of subjects in one arm, and of that group in any arm."""

    values: dict[str, int]
    count: int
    group: int


@dataclass(frozen=True)
class OverlapReport:
    """What a table can say about a treatment given covariates; what cannot be said is None or empty."""

    treatment: str
    kind: Kind
    covariates: list[str]
    n: int
    missing: int
    """Rows left out because a label is missing."""
    level: Level
    verdict: str
    """One sentence in plain words."""
    arms: dict[str, int] = field(default_factory=dict)
    """Images with treatment 0 and 1 (binary treatments)."""
    auc: float | None = None
    """Held-out AUC of the propensity (binary): 0.5 is a randomised treatment, 1 no overlap at all."""
    r_squared: float | None = None
    """Held-out share of the treatment's variance that the covariates explain (continuous)."""
    share_extreme: float | None = None
    """Share of images with a held-out propensity outside [0.05, 0.95] (binary)."""
    histogram_edges: list[float] = field(default_factory=list)
    histogram: dict[str, list[int]] = field(default_factory=dict)
    """Images per bin of the held-out propensity, by arm (binary)."""
    effective_sample_share: float | None = None
    """Kish's effective sample size of the capped inverse weights, as a share of n."""
    balance_measure: Literal["standardised mean difference", "correlation"] = "standardised mean difference"
    balance: list[CovariateBalance] = field(default_factory=list)
    """Covariates, the most imbalanced first."""
    cells: list[Cell] = field(default_factory=list)
    """The smallest cells over binary covariates and the (binary) treatment, the smallest first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)


def overlap_report(
    x_NC: Tensor,
    t_N: Tensor,
    covariate_names: Sequence[str],
    treatment_name: str,
    kind: Kind,
    covariate_is_binary: Sequence[bool],
) -> OverlapReport:
    """Diagnoses the overlap of one treatment given covariates.

    Args:
        x_NC: covariates [N, C], NaN where a label is missing; C may be 0.
        t_N: the treatment [N], 0/1 if binary, NaN where missing.
        covariate_names: C names.
        treatment_name: the treatment's name.
        kind: binary or continuous.
        covariate_is_binary: for each covariate whether it takes 0 and 1 only.

    Raises:
        DataError: no row has all its labels, or a binary treatment has values beside 0 and 1.
    """
    x_NC, t_N = x_NC.detach().cpu().to(torch.float64), t_N.detach().cpu().to(torch.float64)
    complete_N = x_NC.isfinite().all(dim=1) & t_N.isfinite()
    missing = int((~complete_N).sum())
    if missing:
        x_NC, t_N = x_NC[complete_N], t_N[complete_N]
    if not len(t_N):
        raise DataError(
            f"overlap of {treatment_name}: no row has all its labels",
            hint=f"it takes rows that know {treatment_name} and every covariate: complete the table, or name fewer",
        )
    known: dict[str, Any] = {}
    if t_N.unique().numel() > 1:
        predicted_N = cross_fit(x_NC, t_N[:, None], [kind]).mean(x_NC)
        w_N = training_weights(x_NC, t_N[:, None], [kind], "inverse", WEIGHT_CAP)
        known["effective_sample_share"] = effective_sample_size(w_N) / len(t_N)
        describe = _describe_binary if kind == "binary" else _describe_continuous
        known |= describe(x_NC, t_N, predicted_N, w_N.to(torch.float64), covariate_names)
    if kind == "binary":
        known["arms"] = {str(arm): int((t_N == arm).sum()) for arm in (0, 1)}
        known["cells"] = smallest_cells(x_NC, t_N, covariate_names, treatment_name, covariate_is_binary)
    level, sentence = verdict(
        treatment_name,
        has_covariates=bool(len(covariate_names)),
        auc=known.get("auc"),
        r_squared=known.get("r_squared"),
        share_extreme=known.get("share_extreme"),
        effective_sample_share=known.get("effective_sample_share"),
        smallest=((known["cells"][0].values, known["cells"][0].count) if known.get("cells") else None),
    )
    return OverlapReport(
        treatment=treatment_name,
        kind=kind,
        covariates=list(covariate_names),
        n=len(t_N),
        missing=missing,
        level=level,
        verdict=sentence,
        **known,
    )


def smallest_cells(
    x_NC: Tensor,
    t_N: Tensor,
    covariate_names: Sequence[str],
    treatment_name: str,
    covariate_is_binary: Sequence[bool],
) -> list[Cell]:
    """The smallest cells of binary covariates × binary treatment, at most `CELLS_LISTED`.

    A cell is listed, empty or not, if its group (the same covariates, either arm) has an image: a group that
    does not exist asks for no counterfactual. Among cells of one size the one of the largest group is first.
    With more than `MAX_JOINT_COVARIATES` binary covariates the groups are those of each covariate alone.
    """
    binary = [c for c, is_binary in enumerate(covariate_is_binary) if is_binary]
    sets = [tuple(binary)] if len(binary) <= MAX_JOINT_COVARIATES else [(c,) for c in binary]
    cells = []
    for columns in sets:
        # Of each row a number, whose binary digits are its covariates and its arm: rows themselves take long to sort.
        cell_N = torch.zeros(len(x_NC), dtype=torch.int64)
        for c in columns:
            cell_N = 2 * cell_N + (x_NC[:, c] == 1)
        counts = torch.bincount(2 * cell_N + (t_N == 1), minlength=2 ** (len(columns) + 1)).tolist()
        for group, values in enumerate(itertools.product((0, 1), repeat=len(columns))):
            total = counts[2 * group] + counts[2 * group + 1]
            named = {covariate_names[c]: value for c, value in zip(columns, values, strict=True)}
            for arm in (0, 1) if total else ():
                cells.append(Cell({**named, treatment_name: arm}, counts[2 * group + arm], total))
    return sorted(cells, key=lambda cell: (cell.count, -cell.group))[:CELLS_LISTED]


def _describe_binary(
    x_NC: Tensor, t_N: Tensor, e_N: Tensor, w_N: Tensor, covariate_names: Sequence[str]
) -> dict[str, Any]:
    edges = torch.linspace(0.0, 1.0, BINS + 1, dtype=torch.float64)
    low, high = EXTREME
    arms = {str(arm): torch.histc(e_N[t_N == arm], BINS, 0.0, 1.0).to(torch.int64).tolist() for arm in (0, 1)}

    def mean(arm: int, weights_N: Tensor) -> Tensor:
        of_arm_N = weights_N * (t_N == arm)
        return (of_arm_N / of_arm_N.sum()) @ x_NC

    def mean_difference(weights_N: Tensor) -> Tensor:
        return mean(1, weights_N) - mean(0, weights_N)

    def variance(arm: int) -> Tensor:
        """NaN for an empty arm; a column at a time, for a second table would take much memory."""
        columns = (x_N[t_N == arm] for x_N in x_NC.T)
        return x_NC.new_tensor([(x_M - x_M.mean()).square().mean() for x_M in columns])

    scale_C = ((variance(0) + variance(1)) / 2).sqrt()
    before_C, after_C = mean_difference(torch.ones_like(w_N)), mean_difference(w_N)
    return {
        "auc": auc(e_N, t_N),
        "share_extreme": float(((e_N < low) | (e_N > high)).double().mean()),
        "histogram_edges": [round(edge, 4) for edge in edges.tolist()],
        "histogram": arms,
        "balance_measure": "standardised mean difference",
        "balance": _balance(covariate_names, _ratio(before_C, scale_C), _ratio(after_C, scale_C)),
    }


def _describe_continuous(
    x_NC: Tensor, t_N: Tensor, predicted_N: Tensor, w_N: Tensor, covariate_names: Sequence[str]
) -> dict[str, Any]:
    def correlation(weights_N: Tensor) -> list[float | None]:
        share_N = weights_N / weights_N.sum()
        centred_NC, centred_N = x_NC - share_N @ x_NC, t_N - share_N @ t_N
        covariance_C = (share_N * centred_N) @ centred_NC
        scale_C = ((share_N @ centred_NC.square()) * (share_N @ centred_N.square())).sqrt()
        return _ratio(covariance_C, scale_C)

    unexplained = (t_N - predicted_N).square().sum() / (t_N - t_N.mean()).square().sum()
    return {
        "r_squared": float(1.0 - unexplained),
        "balance_measure": "correlation",
        "balance": _balance(covariate_names, correlation(torch.ones_like(w_N)), correlation(w_N)),
    }


def _ratio(numerator_C: Tensor, scale_C: Tensor) -> list[float | None]:
    """Quotients; where nothing varies, 0 if the arms do not differ either and None (undefined) if they do."""
    pairs = zip(numerator_C.tolist(), scale_C.tolist(), strict=True)
    return [n / s if s > 1e-12 else (0.0 if abs(n) < 1e-12 else None) for n, s in pairs]


def _balance(
    names: Sequence[str], before: Sequence[float | None], after: Sequence[float | None]
) -> list[CovariateBalance]:
    rows = [CovariateBalance(*row) for row in zip(names, before, after, strict=True)]
    return sorted(rows, key=lambda row: -abs(row.before) if row.before is not None else -torch.inf)
