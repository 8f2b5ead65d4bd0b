"""Plausible covariates of a picture where the predictor is unsure: combinations of values with their weights.

A counterfactual with a wrongly guessed covariate is that of another person. Where the predictor is unsure, the answer
is therefore the mean over the plausible covariates, y' = Σ p(x|y)·y'(x). Finished pictures are averaged, not labels,
because a face does not change evenly between the values of an attribute. Given the picture, attributes are treated as
independent.

    binary       unsure if the likelier value has a probability below `SURE`: both values, by their probabilities
    continuous   unsure if the standard deviation of the prediction exceeds `WIDE` times the attribute's own:
                 the mean and the mean ± √3 standard deviations, with weights 2/3 and 1/6 each (three-point
                 Gauss–Hermite quadrature, which matches a normal's first five moments); each value beyond the
                 training range becomes the nearest end of it

Only the `MOST` likeliest combinations are kept, with weights rescaled to sum to 1. A treatment is never averaged
over, because a mean of "already so" and "changed" answers no question. It takes its likelier value, and the user is
told.
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
    """Combinations of covariates for B pictures: R rows in the order of the pictures, at least one per picture.

    `row_R` is the index of each combination's picture. The weights of a picture's combinations sum to 1.
    """

    row_R: np.ndarray
    x_RX: np.ndarray
    weight_R: np.ndarray
    pictures: int

    @property
    def counts(self) -> list[int]:
        """Number of combinations of each picture."""
        counts: list[int] = np.bincount(self.row_R, minlength=self.pictures).tolist()
        return counts

    def chunks(self, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield picture indices and covariates, at most `limit` combinations at a time."""
        for start in range(0, len(self.row_R), limit):
            yield self.row_R[start : start + limit], self.x_RX[start : start + limit]

    def mean(self, values_R: np.ndarray) -> np.ndarray:
        """Weighted mean over each picture's combinations, [R, …] to [B, …]."""
        if len(self.row_R) == self.pictures:
            return values_R
        weight_R = self.weight_R.astype(values_R.dtype).reshape(-1, *(1 for _ in values_R.shape[1:]))
        mean_B = np.zeros((self.pictures, *values_R.shape[1:]), dtype=values_R.dtype)
        np.add.at(mean_B, self.row_R, weight_R * values_R)
        return mean_B


def plausible_covariates(x_BX: np.ndarray, options: Sequence[Mapping[int, Sequence[Option]]]) -> Plausible:
    """The likeliest combinations of each picture.

    Args:
        x_BX: stated or predicted covariates.
        options: for each picture, the possible values and weights of its unsure covariates, by column.
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
    """The `most` likeliest combinations of independent options, likeliest first, with weights that sum to 1."""
    best: list[tuple[dict[int, float], float]] = [({}, 1.0)]
    for column, choices in options.items():
        # The best combinations extend the best ones of fewer attributes, so the full product is never built.
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
    """Both values of a binary attribute if its predicted probability of 1 is unsure, else None."""
    if max(probability, 1 - probability) >= SURE:
        return None
    return [(0.0, 1 - probability), (1.0, probability)]


def continuous_options(mean: float, spread: float | None, attribute: Attribute) -> list[Option] | None:
    """Three values of a continuous attribute, within its training range, if its prediction is unsure.

    None if the prediction is sure or `spread` is unknown.

    Args:
        mean, spread: mean and standard deviation of the prediction, in raw units.
    """
    _, scale = attribute.shift_and_scale
    if spread is None or spread <= WIDE * scale:
        return None
    step = math.sqrt(3) * spread
    three = ((mean - step, 1 / 6), (mean, 2 / 3), (mean + step, 1 / 6))
    return [(min(max(value, attribute.low), attribute.high), weight) for value, weight in three]
