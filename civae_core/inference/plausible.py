"""What a picture may show where the predictor is unsure: combinations of covariates with their weights.

A counterfactual with a covariate that was guessed wrong is one of another person. So where the predictor is unsure,
the answer is the mean over what the covariates may be, y' = Σ p(x|y)·y'(x): of finished pictures, not of labels, for
a face does not change evenly between the values of an attribute. Given the picture, attributes count as independent.

    binary       unsure below a probability of `SURE` for its likelier value: both values, by their probabilities
    continuous   unsure where the standard deviation of the prediction is more than `WIDE` of the attribute's own:
                 its mean ± √3 standard deviations, within what training saw, with weights 1/6, 2/3, 1/6 (the
                 three-point rule of Gauss and Hermite, which has a normal's first five moments)

The `MOST` likeliest combinations count, their weights scaled to 1. A treatment is never averaged over: "already so"
and "changed" have no mean that anybody asked for. It takes its likelier value, and the user is told.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from civae_core.attributes import Attribute

SURE = 0.9
WIDE = 0.5
MOST = 8
Option = tuple[float, float]
"""A value and its weight."""


@dataclass(frozen=True)
class Plausible:
    """Combinations of all pictures in the order of the pictures, R rows for B pictures, each at least one.

    `row_R` is the picture of each combination; the weights of a picture's combinations sum to 1.
    """

    row_R: np.ndarray
    x_RX: np.ndarray
    weight_R: np.ndarray
    pictures: int

    @property
    def counts(self) -> list[int]:
        """Combinations of each picture."""
        counts: list[int] = np.bincount(self.row_R, minlength=self.pictures).tolist()
        return counts

    def chunks(self, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pictures' numbers and covariates of at most `limit` combinations at a time."""
        for start in range(0, len(self.row_R), limit):
            yield self.row_R[start : start + limit], self.x_RX[start : start + limit]

    def mean(self, values_R: np.ndarray) -> np.ndarray:
        """The weighted mean of each picture's combinations: [R, …] to [B, …]."""
        if len(self.row_R) == self.pictures:
            return values_R
        weight_R = self.weight_R.astype(values_R.dtype).reshape(-1, *(1 for _ in values_R.shape[1:]))
        mean_B = np.zeros((self.pictures, *values_R.shape[1:]), dtype=values_R.dtype)
        np.add.at(mean_B, self.row_R, weight_R * values_R)
        return mean_B


def plausible_covariates(x_BX: np.ndarray, options: Sequence[Mapping[int, Sequence[Option]]]) -> Plausible:
    """The likeliest combinations of each picture.

    Args:
        x_BX: covariates as they are stated or predicted.
        options: for each picture, the values and weights that a covariate (by its column) may have.
    """
    rows, found, weights = [], [], []
    for row, (x_X, unsure) in enumerate(zip(x_BX, options, strict=True)):
        for combination, weight in likeliest(unsure, MOST):
            changed_X = x_X.copy()
            for column, value in combination.items():
                changed_X[column] = value
            rows.append(row)
            found.append(changed_X)
            weights.append(weight)
    x_RX = np.stack(found) if found else x_BX[:0]
    return Plausible(np.array(rows, dtype=np.int64), x_RX, np.array(weights), len(x_BX))


def likeliest(options: Mapping[int, Sequence[Option]], most: int) -> list[tuple[dict[int, float], float]]:
    """The `most` likeliest combinations of independent options, the likeliest first, with weights that sum to 1."""
    best: list[tuple[dict[int, float], float]] = [({}, 1.0)]
    for column, choices in options.items():
        # The best combinations continue the best ones of fewer attributes: no product of all is ever made.
        longer = [
            (combination | {column: value}, weight * share)
            for combination, weight in best
            for value, share in choices
            if share > 0.0
        ]
        best = sorted(longer, key=lambda entry: -entry[1])[:most]
    total = sum(weight for _, weight in best)
    return [(combination, weight / total) for combination, weight in best]


def binary_options(probability: float) -> list[Option] | None:
    """Both values of a binary attribute whose predicted probability of 1 is unsure; None where it is sure."""
    if max(probability, 1 - probability) >= SURE:
        return None
    return [(0.0, 1 - probability), (1.0, probability)]


def continuous_options(mean: float, spread: float | None, attribute: Attribute) -> list[Option] | None:
    """Three values of a continuous attribute that is predicted unsurely; None where it is sure, or nobody knows.

    Args:
        mean, spread: of the prediction, in raw units.
    """
    _, scale = attribute.shift_and_scale
    if spread is None or spread <= WIDE * scale:
        return None
    ends = (
        max(mean - math.sqrt(3) * spread, attribute.low),
        min(mean + math.sqrt(3) * spread, attribute.high),
    )
    return [(ends[0], 1 / 6), (mean, 2 / 3), (ends[1], 1 / 6)]
