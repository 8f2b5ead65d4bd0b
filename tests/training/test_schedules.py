"""Schedules: bounded, monotone where promised, and pure."""

import itertools

import pytest

from civae_core.training.schedules import EMA_RAMP, beta, ema_decay, learning_rate

PEAK, WARMUP, TOTAL = 1e-3, 1_000, 10_000
EVERY_64 = range(0, TOTAL + 1, 64)


@pytest.mark.parametrize("decay", ["cosine", "none"])
def test_the_learning_rate_is_positive_and_never_above_its_peak(decay: str) -> None:
    rates = [learning_rate(i, peak=PEAK, warmup=WARMUP, total=TOTAL, decay=decay) for i in EVERY_64]
    assert all(0 < rate <= PEAK for rate in rates)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [
        learning_rate(i, peak=PEAK, warmup=WARMUP, total=TOTAL, decay="cosine")
        for i in range(0, TOTAL + 1, 50)
    ]
    top = rates.index(max(rates))
    assert abs(top * 50 - WARMUP) <= 50
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[top:]))
    assert rates[-1] == 0


def test_after_its_end_the_learning_rate_stays_at_zero() -> None:
    assert learning_rate(2 * TOTAL, peak=PEAK, warmup=WARMUP, total=TOTAL, decay="cosine") == 0


def test_without_decay_the_learning_rate_does_not_know_the_total() -> None:
    for images in (0, 500, 5_000, 50_000):
        rates = {learning_rate(images, peak=PEAK, warmup=WARMUP, total=t, decay="none") for t in (10, 10**6)}
        assert len(rates) == 1
    assert learning_rate(WARMUP, peak=PEAK, warmup=WARMUP, total=1, decay="none") == PEAK


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(0, peak=PEAK, warmup=0, total=TOTAL, decay="cosine") == PEAK


def test_beta_rises_from_zero_and_stays() -> None:
    values = [beta(i, final=5.0, warmup=1_000) for i in range(0, 3_000, 100)]
    assert values[0] == 0
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert values[5] == pytest.approx(2.5)
    assert set(values[10:]) == {5.0}
    assert beta(0, final=5.0, warmup=0) == 5.0


def test_the_average_forgets_its_start_and_then_lengthens() -> None:
    decays = [ema_decay(i, halflife=20_000, batch_size=64) for i in range(0, 2_000_000, 6_400)]
    assert decays[0] == 0
    assert all(0 <= decay < 1 for decay in decays)
    assert all(a <= b for a, b in itertools.pairwise(decays))


def test_a_halflife_halves_in_that_many_images() -> None:
    late = 10_000_000
    assert ema_decay(late, halflife=20_000, batch_size=50) ** (20_000 / 50) == pytest.approx(0.5)
    early = 1_000
    assert ema_decay(early, halflife=20_000, batch_size=50) ** (EMA_RAMP * early / 50) == pytest.approx(0.5)


def test_no_halflife_means_no_average() -> None:
    assert {ema_decay(i, halflife=0, batch_size=64) for i in (0, 10, 10**6)} == {0.0}
