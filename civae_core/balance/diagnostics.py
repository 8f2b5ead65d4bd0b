"""Overlap diagnostics before training: could every kind of subject have been in either arm? (METHOD 6)

The AUC, the histogram and the share of extreme propensities come from out-of-fold fits, so that overfitting is not
mistaken for confounding. The weights are capped inverse weights for this treatment alone, whatever a run uses.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from civae_core.balance.imbalance import imbalance, largest
from civae_core.balance.propensity import Kind, cross_fit
from civae_core.balance.verdict import Level, verdict
from civae_core.balance.weights import effective_sample_size, training_weights
from civae_core.errors import DataError

BINS = 20
EXTREME = (0.05, 0.95)
"""A propensity outside this interval means that one arm is nearly empty for such subjects."""
WEIGHT_CAP = 10.0
"""The largest inverse weight, as a multiple of the mean weight."""
CELLS_LISTED = 10
MAX_JOINT_COVARIATES = 6
"""Up to this many binary covariates are crossed; with more, nearly all joint cells would hold one row or none."""


@dataclass(frozen=True)
class CovariateBalance:
    """Imbalance of one covariate without and with inverse weights, as in `imbalance`; None if undefined."""

    covariate: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Cell:
    """Number of images of one group of subjects in one arm (`count`) and in both arms (`group`)."""

    values: dict[str, int]
    count: int
    group: int


@dataclass(frozen=True)
class OverlapReport:
    """Overlap of a treatment given covariates, as far as a table shows it; the rest is None or empty."""

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
    """Held-out AUC of the propensity (binary): 0.5 is a randomised treatment, 1 no overlap at all.

    The mean over folds, each ranked by its own model; None for the tiniest tables.
    """
    r_squared: float | None = None
    """Held-out share of the treatment's variance that the covariates explain (continuous)."""
    share_extreme: float | None = None
    """Share of images with a held-out propensity outside [0.05, 0.95] (binary)."""
    histogram_edges: list[float] = field(default_factory=list)
    histogram: dict[str, list[int]] = field(default_factory=dict)
    """Images per bin of the held-out propensity, by arm (binary)."""
    effective_sample_share: float | None = None
    """Kish's effective sample size of the capped inverse weights, as a share of n.

    It is also high where no weights can balance the arms: see `after` in `balance`.
    """
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
    """Diagnose the overlap of one treatment given covariates.

    Args:
        x_NC: covariates [N, C], NaN where a label is missing; C may be 0. If several treatments are set one at a
            time, the others are covariates of each, because they keep the subject's values.
        t_N: the treatment [N], 0/1 if binary, NaN where missing.
        covariate_names: C names.
        treatment_name: the treatment's name.
        kind: binary or continuous.
        covariate_is_binary: for each covariate, whether it takes only the values 0 and 1.

    Raises:
        DataError: no row has all its labels, or a binary treatment has values other than 0 and 1.
    """
    x_NC, t_N = x_NC.detach().cpu().to(torch.float64), t_N.detach().cpu().to(torch.float64)
    complete_N = x_NC.isfinite().all(dim=1) & t_N.isfinite()
    missing = int((~complete_N).sum())
    if missing:
        x_NC, t_N = x_NC[complete_N], t_N[complete_N]
    if not len(t_N):
        raise DataError(
            f"overlap of {treatment_name}: no row has all its labels",
            hint=f"rows are needed where {treatment_name} and every covariate are known: complete the table, or "
            "name fewer covariates",
        )
    known: dict[str, Any] = {}
    remaining: tuple[str, float] | None = None
    if t_N.unique().numel() > 1:
        fitted = cross_fit(x_NC, t_N[:, None], [kind])
        predicted_N = fitted.mean(x_NC)
        w_N = training_weights(x_NC, t_N[:, None], [kind], "inverse", WEIGHT_CAP)
        known["effective_sample_share"] = effective_sample_size(w_N) / len(t_N)
        if kind == "binary":
            known |= _describe_binary(predicted_N, t_N, fitted.auc(x_NC, t_N))
        else:
            known |= _describe_continuous(predicted_N, t_N)
        before_C, after_C = (
            imbalance(x_NC, t_N, weights_N, kind)
            for weights_N in (torch.ones_like(t_N), w_N.to(torch.float64))
        )
        known["balance"] = _balance(covariate_names, before_C, after_C)
        remaining = largest(covariate_names, after_C)
    if kind == "binary":
        known["arms"] = {str(arm): int((t_N == arm).sum()) for arm in (0, 1)}
        known["cells"] = smallest_cells(x_NC, t_N, covariate_names, treatment_name, covariate_is_binary)
    level, sentence = verdict(
        treatment_name,
        kind=kind,
        has_covariates=bool(len(covariate_names)),
        auc=known.get("auc"),
        r_squared=known.get("r_squared"),
        share_extreme=known.get("share_extreme"),
        effective_sample_share=known.get("effective_sample_share"),
        remaining=remaining,
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

    A cell is listed, empty or not, if its group (the same covariates, either arm) has an image: a group without
    subjects asks for no counterfactual. Among cells of equal size, those of larger groups come first. With more than
    `MAX_JOINT_COVARIATES` binary covariates, the groups are those of each covariate alone.
    """
    binary = [c for c, is_binary in enumerate(covariate_is_binary) if is_binary]
    sets = [tuple(binary)] if len(binary) <= MAX_JOINT_COVARIATES else [(c,) for c in binary]
    cells = []
    for columns in sets:
        # Each row becomes a number whose binary digits are its covariates and arm; sorting whole rows would be slow.
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


def _describe_binary(e_N: Tensor, t_N: Tensor, held_out_auc: float | None) -> dict[str, Any]:
    edges = torch.linspace(0.0, 1.0, BINS + 1, dtype=torch.float64)
    low, high = EXTREME
    arms = {str(arm): torch.histc(e_N[t_N == arm], BINS, 0.0, 1.0).to(torch.int64).tolist() for arm in (0, 1)}
    return {
        "auc": held_out_auc,
        "share_extreme": float(((e_N < low) | (e_N > high)).double().mean()),
        "histogram_edges": [round(edge, 4) for edge in edges.tolist()],
        "histogram": arms,
        "balance_measure": "standardised mean difference",
    }


def _describe_continuous(predicted_N: Tensor, t_N: Tensor) -> dict[str, Any]:
    unexplained = (t_N - predicted_N).square().sum() / (t_N - t_N.mean()).square().sum()
    return {"r_squared": float(1.0 - unexplained), "balance_measure": "correlation"}


def _balance(
    names: Sequence[str], before: Sequence[float | None], after: Sequence[float | None]
) -> list[CovariateBalance]:
    rows = [CovariateBalance(*row) for row in zip(names, before, after, strict=True)]
    return sorted(rows, key=lambda row: -abs(row.before) if row.before is not None else -torch.inf)
