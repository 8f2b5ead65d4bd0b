"""Temperatures and spreads: against a library's optimum, and what is left alone."""

import json
import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute
from civae_core.model.calibrated import (
    COLDEST,
    HOTTEST,
    UNCALIBRATED,
    Calibration,
    fit_calibration,
    fit_temperature,
)

YOUNG, MALE = Attribute("Young", "binary"), Attribute("Male", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)


def overconfident(count: int, factor: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `factor` times what they should be, and labels drawn from the right ones."""
    generator = torch.Generator().manual_seed(seed)
    right_N = 2 * torch.randn(count, generator=generator, dtype=torch.float64)
    label_N = (torch.rand(count, generator=generator, dtype=torch.float64) < right_N.sigmoid()).double()
    return factor * right_N, label_N


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_minimum_that_scipy_finds_and_recovers_the_factor(factor: float) -> None:
    logit_N, label_N = overconfident(4000, factor)
    ones, zeros = label_N.sum(), (1 - label_N).sum()
    target_N = torch.where(label_N == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))

    def loss(log_temperature: float) -> float:
        return float(F.binary_cross_entropy_with_logits(logit_N / math.exp(log_temperature), target_N))

    expected = math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    found = fit_temperature(logit_N, label_N)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(factor, rel=0.1)


def test_labels_told_apart_without_an_error_ask_for_no_certainty() -> None:
    label_N = (torch.arange(40) % 2).double()
    probability_N = ((6 * (2 * label_N - 1)) / fit_temperature(6 * (2 * label_N - 1), label_N)).sigmoid()
    assert float(probability_N.max()) == pytest.approx(21 / 22, abs=1e-3), "Platt's target for 20 of 20"


def test_logits_that_say_nothing_and_logits_that_lie_end_at_the_bounds() -> None:
    logit_N, label_N = overconfident(400, 1.0)
    assert fit_temperature(-logit_N, label_N) == pytest.approx(HOTTEST)
    assert fit_temperature(logit_N * 1e-6, label_N) == pytest.approx(COLDEST)


def test_a_calibration_reads_columns_by_name_and_kind() -> None:
    found = Calibration({"Male": 2.0}, {"Age": 3.0}, {"Male": 30, "Age": 30}, "valid")
    outputs_BA = torch.tensor([[1.0, -3.0, 0.2]])
    expected = torch.tensor([[1.0, -1.5, 0.2]], dtype=torch.float64).sigmoid()
    torch.testing.assert_close(found.probabilities(outputs_BA, (YOUNG, MALE, AGE)), expected)
    torch.testing.assert_close(
        UNCALIBRATED.probabilities(outputs_BA, (YOUNG, MALE, AGE)), outputs_BA.double().sigmoid()
    )


def test_what_is_missing_or_too_little_does_not_count() -> None:
    logit_N, label_N = overconfident(200, 3.0)
    error_N = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs_NA = torch.stack([logit_N, logit_N, torch.zeros(200)], dim=1)
    labels_NA = torch.stack([label_N, label_N, 40 + 5 * error_N], dim=1)
    whole = fit_calibration(outputs_NA, labels_NA, (YOUNG, MALE, AGE), "valid")
    assert whole.spreads["Age"] == pytest.approx(5 * float(error_N.square().mean().sqrt()), rel=1e-6)
    assert whole.images == {"Young": 200, "Male": 200, "Age": 200} and whole.split == "valid"

    labels_NA[50:, 0] = torch.nan
    labels_NA[19:, 1] = torch.nan
    labels_NA[:100, 2] = torch.nan
    outputs_NA[:50, 2] = 1e6  # of unlabelled images
    part = fit_calibration(outputs_NA, labels_NA, (YOUNG, MALE, AGE), "valid")
    assert part.images == {"Young": 50, "Age": 100}
    assert part.temperatures == {"Young": fit_temperature(logit_N[:50], label_N[:50])}
    assert part.spreads["Age"] == pytest.approx(5 * float(error_N[100:].square().mean().sqrt()), rel=1e-6)

    labels_NA[:, 0] = 1.0
    assert "Young" not in fit_calibration(outputs_NA, labels_NA, (YOUNG, MALE, AGE), "valid").temperatures
    assert fit_calibration(outputs_NA[:5], labels_NA[:5], (YOUNG, MALE, AGE), "valid") == UNCALIBRATED


def test_a_calibration_survives_json_and_a_damaged_one_is_refused() -> None:
    found = Calibration({"Male": 1.7}, {"Age": 3.25}, {"Male": 30, "Age": 31}, "valid")
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for key, value in (
        ("temperatures", {"Male": 0.0}),
        ("spreads", {"Age": -1}),
        ("temperatures", {"Male": "nan"}),
    ):
        with pytest.raises(ValueError, match="calibration of"):
            Calibration.from_dict(found.to_dict() | {key: value})
