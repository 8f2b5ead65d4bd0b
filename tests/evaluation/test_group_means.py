"""Means of groups kept by blocks, and the jackknife over them, against loops and the bootstrap."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from civae_core.evaluation import group_means as module
from civae_core.evaluation.group_means import (
    BLOCKS,
    GroupMeans,
    MeanErrors,
    affordable_blocks,
    apart_from,
    compared,
)


def streamed(member_GN: Tensor, images_NCHW: Tensor, blocks: int = BLOCKS, batch: int = 7) -> GroupMeans:
    means = GroupMeans(member_GN, blocks)
    for start in range(0, len(images_NCHW), batch):
        means.add(start, images_NCHW[start : start + batch])
    return means


def noisy(count: int, mean: float, spread: float, seed: int) -> Tensor:
    return mean + spread * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))


def test_means_are_those_of_the_members_whatever_the_batches_and_blocks() -> None:
    images_NCHW = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    member_GN = torch.stack([torch.ones(40, dtype=torch.bool), torch.arange(40) % 3 == 1])
    for blocks, batch in ((1, 40), (1, 7), (BLOCKS, 11)):
        found = streamed(member_GN, images_NCHW, blocks, batch).mean_GCHW
        torch.testing.assert_close(found[0].float(), images_NCHW.mean(0))
        torch.testing.assert_close(found[1].float(), images_NCHW[1::3].mean(0))
    with pytest.raises(ValueError, match="at least one subject"):
        GroupMeans(torch.zeros(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="no images"):
        _ = GroupMeans(torch.ones(1, 4, dtype=torch.bool)).mean_GCHW


def test_the_interval_is_the_jackknife_over_blocks() -> None:
    truth_NCHW, estimate_NCHW = noisy(95, 1.0, 0.4, 1), noisy(95, 0.7, 0.8, 2)
    everyone_GN = torch.ones(1, 95, dtype=torch.bool)
    errors = MeanErrors.of(streamed(everyone_GN, estimate_NCHW), streamed(everyone_GN, truth_NCHW))
    estimate, truth = estimate_NCHW.flatten().double().numpy(), truth_NCHW.flatten().double().numpy()

    def error(kept: np.ndarray) -> float:
        return abs(float(estimate[kept].mean() / truth[kept].mean()) - 1)

    index = np.arange(95)
    without = np.array([error(index % 10 != block) for block in range(10)])
    spread = math.sqrt(0.9 * ((without - without.mean()) ** 2).sum())
    found = errors.mean([0])
    assert found["mean"] == pytest.approx(error(index == index))
    assert (found["hi"] - found["lo"]) / 2 == pytest.approx(2.262 * spread, rel=1e-3)
    drawn = np.random.default_rng(0).integers(95, size=(4000, 95))
    bootstrap = np.std([error(row) for row in drawn])
    assert 0.5 < spread / bootstrap < 1.7, "of the bootstrap's order, over subjects and not over blocks"


def test_intervals_hold_the_populations_error_about_as_often_as_they_say() -> None:
    everyone_GN = torch.ones(1, 60, dtype=torch.bool)
    truth = streamed(everyone_GN, torch.ones(60, 1, 1, 1))
    held = 0
    for seed in range(300):
        found = MeanErrors.of(streamed(everyone_GN, noisy(60, 0.6, 1.0, seed), batch=60), truth).mean([0])
        held += found["lo"] <= 0.4 <= found["hi"]
    assert 0.91 < held / 300 < 0.99


@pytest.mark.parametrize(("count", "student"), [(2, 12.706), (3, 4.303), (9, 2.306)])
def test_with_few_subjects_the_blocks_without_any_do_not_count(count: int, student: float) -> None:
    truth_NCHW, estimate_NCHW = noisy(count, 1.0, 0.1, 1), noisy(count, 0.7, 0.1, 2)
    everyone_GN = torch.ones(1, count, dtype=torch.bool)
    found = MeanErrors.of(streamed(everyone_GN, estimate_NCHW), streamed(everyone_GN, truth_NCHW)).mean([0])
    estimate, truth = estimate_NCHW.flatten().double().numpy(), truth_NCHW.flatten().double().numpy()
    without = [1 - np.delete(estimate, i).mean() / np.delete(truth, i).mean() for i in range(count)]
    reach = student * math.sqrt((count - 1) * np.var(without))
    assert found["hi"] - found["mean"] == pytest.approx(reach, rel=1e-3)
    some_GN = (torch.arange(40) < count)[None]
    padded = [torch.cat([values, torch.ones(40 - count, 1, 1, 1)]) for values in (estimate_NCHW, truth_NCHW)]
    assert MeanErrors.of(*(streamed(some_GN, values) for values in padded)).mean([0]) == found


def test_blocks_that_hold_only_subjects_of_other_groups_do_not_count() -> None:
    """A group of 5 among 100 people, in 5 of 10 blocks: its interval is that of the 5 alone."""
    group_GN = torch.stack([torch.ones(100, dtype=torch.bool), torch.arange(100) < 5])
    estimate_NCHW, truth_NCHW = noisy(100, 0.7, 0.1, 2), noisy(100, 1.0, 0.1, 1)
    among = MeanErrors.of(streamed(group_GN, estimate_NCHW), streamed(group_GN, truth_NCHW))
    own_GN = torch.ones(1, 5, dtype=torch.bool)
    alone = MeanErrors.of(streamed(own_GN, estimate_NCHW[:5]), streamed(own_GN, truth_NCHW[:5]))
    assert among.mean([1]) == pytest.approx(alone.mean([0])) and "lo" in among.mean([1])


def test_intervals_of_few_subjects_hold_as_often_as_they_say() -> None:
    everyone_GN = torch.ones(1, 4, dtype=torch.bool)
    truth = streamed(everyone_GN, torch.ones(4, 1, 1, 1))
    held = 0
    for seed in range(300):
        found = MeanErrors.of(streamed(everyone_GN, noisy(4, 0.6, 0.1, seed)), truth).mean([0])
        held += found["lo"] <= 0.4 <= found["hi"]
    assert 0.91 < held / 300 < 0.99


def test_chance_is_what_an_estimate_from_other_subjects_cannot_avoid() -> None:
    everyone_GN = torch.ones(1, 50, dtype=torch.bool)
    errors, by_chance = [], []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        truth_NCHW, other_NCHW = 1 + torch.randn(2, 50, 3, 2, 2, generator=generator)
        apart_N = apart_from(other_NCHW, truth_NCHW)
        found = MeanErrors.of(streamed(everyone_GN, other_NCHW), streamed(everyone_GN, truth_NCHW), apart_N)
        errors.append(found.mean([0])["mean"])
        by_chance.append(found.mean([0])["chance"])
    rms = [math.sqrt(np.square(values).mean()) for values in (errors, by_chance)]
    assert rms[1] == pytest.approx(rms[0], rel=0.05), (
        "the estimate is right on average: chance is all there is"
    )
    assert rms[1] == pytest.approx(math.sqrt(2 / 50), rel=0.05)
    shifted = MeanErrors.of(
        streamed(everyone_GN, other_NCHW + 5),
        streamed(everyone_GN, truth_NCHW),
        apart_from(other_NCHW + 5, truth_NCHW),
    ).mean([0])
    assert shifted["chance"] == pytest.approx(by_chance[-1], rel=1e-3), "a bias is not put down to chance"
    one_GN = (torch.arange(50) == 0)[None]
    alone = MeanErrors.of(streamed(one_GN, other_NCHW), streamed(one_GN, truth_NCHW), apart_N).mean([0])
    assert set(alone) == {"mean"}, "of one subject nothing can be told"


def test_without_a_bias_the_corrected_error_is_near_0_and_the_error_near_chance() -> None:
    """Answers about 100 subjects that are right on average; then some with a bias as large as chance."""
    everyone_GN, per_pixel = torch.ones(1, 100, dtype=torch.bool), 0.3 / 10
    truth = streamed(everyone_GN, torch.ones(100, 3, 4, 4), batch=100)
    squares = []
    for seed, bias in [(seed, bias) for seed in range(60) for bias in (0.0, per_pixel)]:
        wrong_NCHW = 0.3 * torch.randn(100, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        answer_NCHW = 1 + bias + wrong_NCHW
        apart_N = apart_from(answer_NCHW, torch.ones(100, 3, 4, 4))
        found = MeanErrors.of(streamed(everyone_GN, answer_NCHW, batch=100), truth, apart_N).mean([0])
        squares.append([found[key] ** 2 for key in ("mean", "chance", "corrected")])
    error, chance, corrected = np.sqrt(np.reshape(squares, (60, 2, 3)).mean(axis=0)).T
    assert error[0] == pytest.approx(per_pixel, rel=0.05) and chance == pytest.approx(
        [per_pixel] * 2, rel=0.05
    )
    assert corrected[0] < 0.4 * error[0]
    assert error[1] == pytest.approx(math.sqrt(2) * per_pixel, rel=0.05), "the bias and chance"
    assert corrected[1] == pytest.approx(per_pixel, rel=0.05), "the bias alone"


def test_groups_are_ranked_and_those_without_an_effect_are_passed_over() -> None:
    member_GN = torch.arange(90) % 3 == torch.arange(3)[:, None]
    truth_NCHW = torch.tensor([1.0, 2.0, 0.0]).repeat(30)[:, None, None, None]
    estimate_NCHW = torch.tensor([0.9, 1.0, 5.0]).repeat(30)[:, None, None, None]
    errors = MeanErrors.of(streamed(member_GN, estimate_NCHW), streamed(member_GN, truth_NCHW))
    found = compared(errors, ["a", "b", "c"], [30, 30, 30], [0, 1, 2])
    assert [row["group"] for row in found["groups"]] == ["b", "a"]
    assert found["worst"] == found["groups"][0] and found["worst"]["mean"] == pytest.approx(0.5)
    assert found["mean"] == pytest.approx(0.3) and found["worst"]["n"] == 30
    assert compared(errors, ["a", "b", "c"], [30, 30, 30], [2]) == {}


def test_without_room_for_blocks_or_members_in_all_of_them_there_is_no_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_GN = (torch.arange(40) == 4)[None]
    images_NCHW = torch.ones(40, 1, 1, 1)
    found = MeanErrors.of(streamed(few_GN, images_NCHW / 2), streamed(few_GN, images_NCHW)).mean([0])
    assert found == {"mean": 0.5}
    all_GN = torch.ones(1, 40, dtype=torch.bool)
    whole = MeanErrors.of(streamed(all_GN, images_NCHW, 1), streamed(all_GN, images_NCHW, 1)).mean([0])
    assert whole == {"mean": 0.0}
    assert affordable_blocks(13, 3 * 64 * 64) == BLOCKS
    monkeypatch.setattr(module, "MOST_BYTES", 8 * BLOCKS * 13 * 100 - 1)
    assert (affordable_blocks(13, 100), affordable_blocks(12, 100)) == (1, BLOCKS)
