"""Bootstrap intervals: coverage, ratios of sums, seeds."""

import math

import pytest
import torch

from civae_core.evaluation.bootstrap import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    share_change_interval,
    share_interval,
    wilson_interval,
)


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
    assert 0.88 <= hits / 100 <= 0.96


def test_it_is_printed_with_its_bounds_if_it_has_any() -> None:
    assert f"{Interval(0.25, 0.125, 0.5):.2f} {Interval(0.25):.1f}" == "0.25 [0.12, 0.50] 0.2"


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
    some_zero = bootstrap_ratio(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]))
    assert (some_zero.mean, some_zero.lo, some_zero.hi) == (0.5, 0.5, 0.5)
    for bad in (torch.empty(0), torch.tensor([1.0, torch.nan])):
        with pytest.raises(ValueError, match="finite"):
            bootstrap_mean(bad)
    with pytest.raises(ValueError, match="denominator"):
        bootstrap_ratio(torch.ones(2), torch.zeros(2))


def test_map_keeps_the_order() -> None:
    assert Interval(4.0, 1.0, 9.0).map(math.sqrt) == Interval(2.0, 1.0, 3.0)


def test_a_single_image_says_nothing_about_others() -> None:
    alone = bootstrap_mean(torch.tensor([4.0]))
    assert alone == Interval(4.0) and alone.to_dict() == {"mean": 4.0}
    assert alone.map(math.sqrt).to_dict() == {"mean": 2.0}
    assert bootstrap_ratio(torch.tensor([1.0]), torch.tensor([2.0])).to_dict() == {"mean": 0.5}
    assert set(bootstrap_mean(torch.tensor([4.0, 5.0])).to_dict()) == {"mean", "lo", "hi"}
    assert set(share_interval(torch.ones(1)).to_dict()) == {"mean", "lo", "hi"}, "wide, but it can be told"


def test_a_share_of_all_or_none_is_not_certain() -> None:
    everyone, nobody = share_interval(torch.ones(500)), share_interval(torch.zeros(500, dtype=torch.bool))
    assert (everyone.mean, everyone.hi) == (1.0, 1.0) and everyone.lo == pytest.approx(0.9924, abs=1e-4)
    assert (nobody.mean, nobody.lo) == (0.0, 0.0) and nobody.hi == pytest.approx(1 - everyone.lo)
    half = share_interval(torch.arange(100) % 2)
    assert (half.lo, half.hi) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(0.5, 100) == (half.lo, half.hi)


def test_a_share_that_never_changed_may_change_elsewhere() -> None:
    still = share_change_interval(torch.zeros(500))
    assert still.mean == 0.0 and still.lo == pytest.approx(-still.hi) and 0.004 < still.hi < 0.008
    all_lost = share_change_interval(-torch.ones(30))
    assert (all_lost.mean, all_lost.lo) == (-1.0, -1.0) and -0.95 < all_lost.hi < -0.7
    # Bonett and Price: (2 − 6) / 102 ± 1.96 √((8/102 − (4/102)²) / 102), of 5 lost and 1 gained among 100.
    some = share_change_interval(torch.tensor([-1.0] * 5 + [1.0] + [0.0] * 94))
    assert (some.mean, some.lo, some.hi) == pytest.approx((-0.04, -0.0930, 0.0146), abs=1e-4)


def test_intervals_of_rare_changes_hold_about_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(5)
    uniform_RN = torch.rand(400, 100, generator=generator)
    held = 0
    for uniform_N in uniform_RN:
        found = share_change_interval((uniform_N < 0.01).double() - (uniform_N > 0.97).double())
        held += found.lo <= -0.02 <= found.hi
    assert held / 400 > 0.93


def test_what_is_no_share_has_no_interval_of_one() -> None:
    for bad in (torch.tensor([0.5, 1.0]), torch.tensor([-1.0]), torch.empty(0), torch.tensor([torch.nan])):
        with pytest.raises(ValueError, match="share"):
            share_interval(bad)
    with pytest.raises(ValueError, match="share"):
        share_change_interval(torch.tensor([2.0]))
