"""The overlap diagnostics in one sentence for readers without a background in statistics."""

from collections.abc import Mapping
from typing import Literal

from civae_core.balance.imbalance import LARGE_IMBALANCE, LITTLE_IMBALANCE, largest_text
from civae_core.balance.propensity import Kind

Level = Literal["good", "moderate", "poor", "unknown"]

GOOD_SAMPLE, MODERATE_SAMPLE = 0.8, 0.4
GOOD_EXTREME, MODERATE_EXTREME = 0.05, 0.30
"""Conventions of this project, not of the literature. At these bounds, weighting costs a fifth (three fifths)
of the images' information, and one in twenty (three in ten) subjects has practically no counterpart."""
GOOD_R_SQUARED, MODERATE_R_SQUARED = 0.25, 0.5
"""From the first bound on, the uncapped weights of a Gaussian treatment and covariate have infinite variance; beyond
the second, the covariates explain more of the treatment than they leave unexplained."""


def verdict(
    treatment: str,
    *,
    kind: Kind,
    has_covariates: bool,
    auc: float | None,
    r_squared: float | None,
    share_extreme: float | None,
    effective_sample_share: float | None,
    remaining: tuple[str, float] | None,
    smallest: tuple[Mapping[str, int], int] | None,
) -> tuple[Level, str]:
    """Grade the overlap and give the reasons.

    Args:
        treatment: the treatment's name.
        kind: kind of the treatment.
        has_covariates: whether any covariate was given.
        auc: held-out AUC of a binary treatment.
        r_squared: held-out R² of a continuous treatment.
        share_extreme: share of images with a held-out propensity outside [0.05, 0.95] (binary only).
        effective_sample_share: of the inverse weights; also high where no weights can balance the arms.
        remaining: the covariate with the largest imbalance after weighting, and its size, ∞ if undefined.
        smallest: the values and the count of the smallest cell, if cells are known.
    """
    if effective_sample_share is None:
        return "poor", f"All images have the same value of {treatment}: there is nothing to compare."
    if not has_covariates:
        return "unknown", f"No covariates are given, so nothing can be said about who gets {treatment}."
    assert remaining is not None, "covariates have an imbalance"
    extreme, explained, apart = share_extreme or 0.0, r_squared or 0.0, remaining[1]
    level: Level = "poor"
    if (
        effective_sample_share >= GOOD_SAMPLE
        and extreme <= GOOD_EXTREME
        and explained <= GOOD_R_SQUARED
        and apart <= LITTLE_IMBALANCE
    ):
        level = "good"
    elif (
        effective_sample_share >= MODERATE_SAMPLE
        and extreme <= MODERATE_EXTREME
        and explained <= MODERATE_R_SQUARED
        and apart <= LARGE_IMBALANCE
    ):
        level = "moderate"
    makes = "makes" if apart <= LITTLE_IMBALANCE else "does not make"
    alike = "the groups alike" if kind == "binary" else f"{treatment} unrelated to them"
    balanced = f"weighting {makes} {alike} ({largest_text(kind, *remaining)})"
    reasons = [f"{balanced} and leaves {effective_sample_share:.0%} of the images' information"]
    if auc is not None:
        reasons.insert(
            0, f"the covariates predict {treatment} with an AUC of {auc:.2f} (0.5 is chance, 1 is certain)"
        )
    if r_squared is not None:
        reasons.insert(0, f"the covariates explain {max(r_squared, 0.0):.0%} of the variance of {treatment}")
    if share_extreme is not None and share_extreme > GOOD_EXTREME:
        reasons.append(
            f"{share_extreme:.0%} of the subjects have practically no counterpart in the other arm"
        )
    if smallest is not None and level != "good":
        values = ", ".join(f"{name}={value}" for name, value in smallest[0].items())
        reasons.append(f"the smallest group ({values}) has {smallest[1]} image{'s' * (smallest[1] != 1)}")
    ending = "; counterfactuals into sparse groups are extrapolation." if level == "poor" else "."
    joined = ", ".join(reasons[:-1]) + f" and {reasons[-1]}" if len(reasons) > 1 else reasons[0]
    return level, f"Overlap is {level}: {joined}{ending}"
