"""Where the predictor is unsure: what is averaged over, how likely each of it is, and what it costs."""

import itertools
import math

import numpy as np
import pytest
import torch

from civae_core.attributes import Attribute
from civae_core.inference.plausible import (
    MOST,
    SURE,
    binary_options,
    continuous_options,
    likeliest,
    plausible_covariates,
)

AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)


def test_a_binary_attribute_is_unsure_below_the_threshold_for_its_likelier_value() -> None:
    assert SURE == 0.9
    for sure in (0.0, 0.05, 0.1, 0.9, 0.97, 1.0):
        assert binary_options(sure) is None
    assert binary_options(0.85) == [(0.0, pytest.approx(0.15)), (1.0, 0.85)]
    assert binary_options(0.11) == [(0.0, pytest.approx(0.89)), (1.0, 0.11)]


def test_three_values_of_a_continuous_attribute_have_a_normals_first_five_moments() -> None:
    mean, spread = 45.0, 6.0
    options = continuous_options(mean, spread, AGE)
    assert options is not None
    moments = [sum(weight * ((value - mean) / spread) ** k for value, weight in options) for k in range(6)]
    assert moments == pytest.approx([1, 0, 1, 0, 3, 0], abs=1e-9)
    assert continuous_options(mean, 5.0, AGE) is None, "half of the attribute's own spread is sure enough"
    assert continuous_options(mean, None, AGE) is None, "a model that does not know its spread"


def test_values_stay_within_what_training_saw() -> None:
    low, high = continuous_options(3.0, 8.0, AGE), continuous_options(96.0, 8.0, AGE)
    beyond = continuous_options(105.0, 8.0, AGE)
    assert low is not None and high is not None and beyond is not None
    assert (low[0][0], low[2][0]) == (0.0, pytest.approx(3 + 8 * math.sqrt(3)))
    assert (high[0][0], high[2][0]) == (pytest.approx(96 - 8 * math.sqrt(3)), 100.0)
    assert [value for value, _ in beyond] == [pytest.approx(105 - 8 * math.sqrt(3)), 100.0, 100.0]
    assert continuous_options(-40.0, 8.0, AGE) == [(0.0, 1 / 6), (0.0, 2 / 3), (0.0, 1 / 6)]


def test_the_likeliest_combinations_are_those_of_all_products() -> None:
    generator = torch.Generator().manual_seed(0)
    options = {
        column: [
            (float(v), float(p))
            for v, p in enumerate(torch.rand(2 + column % 2, generator=generator).softmax(0))
        ]
        for column in range(5)
    }
    everything = [
        (dict(zip(options, [value for value, _ in chosen], strict=True)), math.prod(p for _, p in chosen))
        for chosen in itertools.product(*options.values())
    ]
    best = sorted(everything, key=lambda entry: -entry[1])[:MOST]
    total = sum(weight for _, weight in best)
    found = likeliest(options, MOST)
    assert [combination for combination, _ in found] == [combination for combination, _ in best]
    assert [weight for _, weight in found] == pytest.approx([weight / total for _, weight in best])
    assert likeliest({}, MOST) == [({}, 1.0)]


def test_twenty_unsure_attributes_cost_no_million_of_combinations() -> None:
    found = likeliest({column: [(0.0, 0.4), (1.0, 0.6)] for column in range(20)}, MOST)
    assert len(found) == MOST
    assert found[0] == (dict.fromkeys(range(20), 1.0), max(weight for _, weight in found))
    assert sum(weight for _, weight in found) == pytest.approx(1.0)


def test_pictures_have_as_many_rows_as_they_are_unsure_of() -> None:
    x_BX = np.array([[1.0, 40.0], [0.0, 30.0], [1.0, 20.0]], dtype=np.float32)
    found = plausible_covariates(x_BX, [{}, {0: [(0.0, 0.7), (1.0, 0.3)]}, {}])
    assert found.counts == [1, 2, 1]
    assert found.row_R.tolist() == [0, 1, 1, 2]
    assert found.x_RX.tolist() == [[1.0, 40.0], [0.0, 30.0], [1.0, 30.0], [1.0, 20.0]]
    assert found.weight_R.tolist() == pytest.approx([1.0, 0.7, 0.3, 1.0])
    values_R = np.array([[[5.0]], [[1.0]], [[2.0]], [[7.0]]], dtype=np.float32)
    np.testing.assert_allclose(found.mean(values_R), [[[5.0]], [[1.3]], [[7.0]]], rtol=1e-6)
    assert [row.tolist() for row, _ in found.chunks(3)] == [[0, 1, 1], [2]]


def test_sure_pictures_pass_untouched() -> None:
    found = plausible_covariates(np.zeros((2, 0), dtype=np.float32), [{}, {}])
    values_R = np.ones((2, 3))
    assert found.mean(values_R) is values_R
    assert found.x_RX.shape == (2, 0)
