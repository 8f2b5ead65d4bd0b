"""The factual attributes of a picture: stated by the user, found in a table, or predicted from the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from civae_core.attributes import Attribute, AttributeRoles, shortest
from civae_core.engine.base import Array, Engine
from civae_core.errors import UsageError
from civae_core.inference.pictures import Picture
from civae_core.inference.plausible import (
    Option,
    Plausible,
    binary_options,
    continuous_options,
    plausible_covariates,
)
from civae_core.model.calibrated import Calibration


@dataclass(frozen=True)
class Unsure:
    """What the predictor was unsure of in a picture, and what was done about it."""

    averaged: tuple[str, ...] = ()
    """Covariates over whose plausible values the answer is averaged."""
    combinations: int = 1
    """Number of their combinations averaged over."""
    taken: tuple[str, ...] = ()
    """Treatments set to their likelier value."""

    @property
    def names(self) -> tuple[str, ...]:
        """All attributes that the predictor was unsure of."""
        return self.taken + self.averaged


@dataclass(frozen=True)
class Labels:
    """Factual values of a batch in raw units, and where they come from."""

    t_BT: Array
    x_BX: Array
    """A predicted attribute has its likelier value if it is binary, and the predicted mean if it is continuous."""
    predicted: list[dict[str, float | None]]
    """For each picture, the attributes that were predicted: the probability of the value 1, None if continuous."""
    spreads: list[dict[str, float]]
    """For each picture, the standard deviations of the predicted continuous attributes, where known."""
    plausible: Plausible
    """Plausible covariates: the answer for a picture is the mean over its combinations."""
    unsure: list[Unsure]

    def factual(self, row: int, roles: AttributeRoles) -> dict[str, float]:
        """Values of one picture by name, treatments first; predicted ones to six digits."""
        values = [*self.t_BT[row].tolist(), *self.x_BX[row].tolist()]
        return {
            a.name: float(f"{value:.6g}") if a.name in self.predicted[row] else shortest(value)
            for a, value in zip(roles.inputs, values, strict=True)
        }

    def beyond(self, row: int, roles: AttributeRoles) -> tuple[str, ...]:
        """Names of the values of one picture that are outside the training range, predicted ones left out."""
        factual, predicted = self.factual(row, roles), self.predicted[row]
        return tuple(
            a.name for a in roles.inputs if a.name not in predicted and not a.in_range(factual[a.name])
        )


def fill_labels(
    engine: Engine, y_BCHW: Array, pictures: Sequence[Picture], stated: Mapping[str, float]
) -> Labels:
    """Fill in factual values: stated ones take precedence over a table's, and those over the predictor's.

    Args:
        y_BCHW: the pictures as floats in [0,1].
        stated: values that hold for every picture.

    Raises:
        UsageError: a value is unknown and the model has no predictor.
    """
    roles, calibration = engine.roles, engine.calibration
    known = [{**picture.known, **stated} for picture in pictures]
    named = [[values.get(a.name, np.nan) for a in roles.inputs] for values in known]
    a_BA = np.array(named, dtype=np.float32).reshape(len(pictures), len(roles.inputs))
    missing_BA = np.isnan(a_BA)
    guesses = [_Guesses() for _ in pictures]
    if missing_BA.any():
        outputs_BA = engine.guess(y_BCHW)
        if outputs_BA is None:
            row = int(missing_BA.any(axis=1).argmax())
            names = ", ".join(sorted(a.name for a in roles.inputs if a.name not in known[row]))
            raise UsageError(
                f"{pictures[row].name}: {names} not stated, and this model was trained without a predictor",
                hint="state them with --attr NAME=VALUE or --attrs TABLE",
            )
        values_BA, probability_BA = _guess(outputs_BA, roles.inputs, calibration)
        a_BA = np.where(missing_BA, values_BA, a_BA)
        for row, column in np.argwhere(missing_BA).tolist():
            attribute, value = roles.inputs[column], float(values_BA[row, column])
            covariate = column - len(roles.treatments) if column >= len(roles.treatments) else None
            if attribute.kind == "binary":
                guesses[row].add_binary(attribute, float(probability_BA[row, column]), covariate)
            else:
                spread = calibration.spreads.get(attribute.name)
                guesses[row].add_continuous(attribute, value, spread, covariate)
    t_BT, x_BX = np.split(a_BA, [len(roles.treatments)], axis=1)
    plausible = plausible_covariates(x_BX, [guess.options for guess in guesses])
    return Labels(
        t_BT,
        x_BX,
        [guess.probabilities for guess in guesses],
        [guess.spreads for guess in guesses],
        plausible,
        [
            Unsure(
                tuple(roles.covariates[column].name for column in guess.options), count, tuple(guess.taken)
            )
            for guess, count in zip(guesses, plausible.counts, strict=True)
        ],
    )


class _Guesses:
    """Predictions for one picture; `column` is a covariate's, or None for a treatment."""

    def __init__(self) -> None:
        self.probabilities: dict[str, float | None] = {}
        self.spreads: dict[str, float] = {}
        self.options: dict[int, list[Option]] = {}
        self.taken: list[str] = []

    def add_binary(self, attribute: Attribute, probability: float, column: int | None) -> None:
        self.probabilities[attribute.name] = round(probability, 4)
        self._add(attribute, binary_options(probability), column)

    def add_continuous(
        self, attribute: Attribute, value: float, spread: float | None, column: int | None
    ) -> None:
        self.probabilities[attribute.name] = None
        if spread is not None:
            self.spreads[attribute.name] = float(f"{spread:.6g}")
        self._add(attribute, continuous_options(value, spread, attribute), column)

    def _add(self, attribute: Attribute, options: list[Option] | None, column: int | None) -> None:
        if options is None:
            return
        if column is None:
            self.taken.append(attribute.name)
        else:
            self.options[column] = options


def describe_unsure(name: str, unsure: Unsure, predicted: Mapping[str, float | None]) -> list[str]:
    """Sentences on what the predictor was unsure of in the picture `name`; none if it was sure.

    Args:
        predicted: predicted probabilities of the picture's labels.
    """

    def said(names: Sequence[str]) -> str:
        shown = {attribute: predicted.get(attribute) for attribute in names}
        return ", ".join(a if p is None else f"{a} (1 with probability {p:.2f})" for a, p in shown.items())

    texts = []
    if unsure.averaged:
        over = f"the mean over {unsure.combinations} plausible combinations"
        texts.append(f"{name}: unsure of {said(unsure.averaged)}; the answer is {over}")
    if unsure.taken:
        texts.append(f"{name}: unsure of {said(unsure.taken)}; the likelier value is used")
    return texts


def describe_unchanged(
    name: str,
    interventions: Sequence[Mapping[str, float]],
    factual: Mapping[str, float],
    predicted: Mapping[str, float | None],
) -> list[str]:
    """A sentence if, by prediction, a picture already has every requested value; none otherwise.

    A user who asks for *old* and gets the photograph back must learn that the predictor takes its subject for old.

    Args:
        interventions: values set, by treatment name, in raw units.
    """
    guessed = {treatment for treat in interventions for treatment in treat if treatment in predicted}
    if not guessed or any(treat[n] != factual[n] for treat in interventions for n in treat):
        return []
    said = " and ".join(f"{n} is predicted to be {factual[n]:g}" for n in sorted(guessed))
    other = " ".join(f"--attr {n}=…" for n in sorted(guessed))
    return [f"{name}: {said} already, so nothing is changed; if that is wrong, correct it with {other}"]


def _guess(
    outputs_BA: Array, attributes: Sequence[Attribute], calibration: Calibration
) -> tuple[Array, Array]:
    """The predictor's outputs as values in raw units [B,A], and as probabilities of 1 [B,A] where they are logits."""
    binary_A = np.array([a.kind == "binary" for a in attributes])
    shift_A, scale_A = np.array([a.shift_and_scale for a in attributes], dtype=np.float64).T
    probability_BA = calibration.probability_of(outputs_BA, attributes)
    continuous_BA = shift_A + scale_A * outputs_BA
    values_BA = np.where(binary_A, probability_BA >= 0.5, continuous_BA).astype(np.float32)
    return values_BA, probability_BA
