"""Bootstrap intervals: coverage, ratios of sums, seeds."""

import math

import pytest
import torch

from civae_core.evaluation.bootstrap import Interval, bootstrap_mean, bootstrap_ratio


def test_interval_of_a_mean_has_the_textbook_width() -> None:
    values_N = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2.0 + 5.0
    found = bootstrap_mean(values_N)
    assert found.mean == pytest.approx(float(values_N.mean()))
    half_width = 1.96 * float(values_N.std()) / math.sqrt(400)
    assert found.hi - found.mean == pytest.approx(half_width, rel=0.15)
    assert found.mean - found.lo == pytest.approx(half_width, rel=0.15)


def test_coverage_is_near_its_level() -> None:
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for _ in range(100):
        size_N = torch.rand(80, generator=generator) + 0.5
        error_N = size_N * 0.3 + 0.2 * torch.randn(80, generator=generator)
        found = bootstrap_ratio(error_N, size_N)
        hits += found.lo <= 0.3 <= found.hi
    assert 0.88 <= hits / 100 <= 1.0


def test_a_ratio_is_one_of_sums_not_a_mean_of_ratios() -> None:
    assert bootstrap_ratio(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 9.0])).mean == pytest.approx(0.2)


def test_the_same_seed_gives_the_same_interval() -> None:
    values_N = torch.rand(50, generator=torch.Generator().manual_seed(2))
    assert bootstrap_mean(values_N, seed=4) == bootstrap_mean(values_N, seed=4)
    assert bootstrap_mean(values_N, seed=4) != bootstrap_mean(values_N, seed=5)


def test_large_sets_are_resampled_in_chunks() -> None:
    found = bootstrap_mean(torch.rand(30_000, generator=torch.Generator().manual_seed(3)))
    assert found.hi - found.lo == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 30_000), rel=0.2)


def test_edge_cases() -> None:
    assert bootstrap_mean(torch.tensor([3.0])) == Interval(3.0, 3.0, 3.0)
    some_zero = bootstrap_ratio(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]))
    assert (some_zero.mean, some_zero.lo, some_zero.hi) == (0.5, 0.5, 0.5)
    for bad in (torch.empty(0), torch.tensor([1.0, torch.nan])):
        with pytest.raises(ValueError, match="finite"):
            bootstrap_mean(bad)
    with pytest.raises(ValueError, match="denominator"):
        bootstrap_ratio(torch.ones(2), torch.zeros(2))


def test_map_keeps_the_order() -> None:
    assert Interval(4.0, 1.0, 9.0).map(math.sqrt) == Interval(2.0, 1.0, 3.0)
