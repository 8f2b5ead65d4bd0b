"""CLD: a brute-force loop over pairs, what doing nothing scores, and whom it leaves out."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.minimality import DOING_NOTHING, LatentReferences, MinimalityTally, pairwise_kl
from civae_core.model.distributions import DiagonalNormal
from civae_core.yardstick import Reading

MakeAsked = Callable[..., Asked]


def latents(count: int, seed: int) -> DiagonalNormal:
    generator = torch.Generator().manual_seed(seed)
    return DiagonalNormal(
        torch.randn(count, 3, generator=generator), 0.3 * torch.randn(count, 3, generator=generator)
    )


def reading(latent: DiagonalNormal) -> Reading:
    empty_BA = torch.zeros(len(latent.mean_BZ), 0)
    return Reading(empty_BA, empty_BA, latent)


def kl(one: DiagonalNormal, i: int, other: DiagonalNormal, j: int) -> float:
    a = Normal(one.mean_BZ[i], one.std_BZ[i])
    return float(kl_divergence(a, Normal(other.mean_BZ[j], other.std_BZ[j])).sum())


def asked_with(make_asked: MakeAsked, latent: DiagonalNormal, t_BT: Tensor) -> Asked:
    return make_asked(torch.zeros(len(t_BT), 1, 16, 16), t_BT=t_BT, seen=reading(latent))


def references(zero: int = 20, one: int = 15) -> LatentReferences:
    """Of other images than those asked about."""
    rows = 1000 + torch.arange(zero), 2000 + torch.arange(one)
    return LatentReferences(0, {0.0: (rows[0], latents(zero, 7)), 1.0: (rows[1], latents(one, 8))})


def tallied(
    make_asked: MakeAsked, before: DiagonalNormal, after: DiagonalNormal, t_BT: Tensor
) -> MinimalityTally:
    tally = MinimalityTally(references())
    asked = asked_with(make_asked, before, t_BT)
    tally.add(asked, Answer(asked.y_BCHW), Seen(reading(after), None, None))
    return tally


def test_pairwise_divergences_are_torchs() -> None:
    one, others = latents(4, 1), latents(5, 2)
    found_BM = pairwise_kl(one, others)
    for i in range(4):
        for j in range(5):
            assert float(found_BM[i, j]) == pytest.approx(kl(one, i, others, j), rel=1e-4)


def test_the_score_agrees_with_a_loop(make_asked: MakeAsked) -> None:
    before, after = latents(6, 3), latents(6, 4)
    t_BT = (torch.arange(6) % 2).float()[:, None]
    found = tallied(make_asked, before, after, t_BT).summary(0)["minimality"]
    expected = []
    for i in range(6):
        moved = kl(before, i, after, i)
        own, other = (references().by_value[value][1] for value in (float(t_BT[i]), 1 - float(t_BT[i])))
        within = np.mean([kl(before, i, own, j) <= moved for j in range(len(own.mean_BZ))])
        beyond = np.mean([kl(before, i, other, j) >= moved for j in range(len(other.mean_BZ))])
        expected.append(math.log(0.8 * math.exp(within) + 0.2 * math.exp(beyond)))
    assert found["cld"]["mean"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_doing_nothing_scores_what_is_printed_beside_it(make_asked: MakeAsked) -> None:
    before = latents(5, 5)
    found = tallied(make_asked, before, before, torch.zeros(5, 1)).summary(0)["minimality"]
    assert found["cld"]["mean"] == pytest.approx(0.2954, abs=5e-5)
    assert found["doing_nothing"] == DOING_NOTHING == pytest.approx(found["cld"]["mean"], abs=1e-6)


def test_an_image_is_not_its_own_reference(make_asked: MakeAsked) -> None:
    before = latents(5, 5)
    own = LatentReferences(0, {0.0: (torch.arange(5), before), 1.0: (torch.arange(50, 60), latents(10, 6))})
    tally = MinimalityTally(own)
    asked = asked_with(make_asked, before, torch.zeros(5, 1))
    tally.add(asked, Answer(asked.y_BCHW), Seen(reading(before), None, None))
    assert tally.summary(0)["minimality"]["cld"]["mean"] == pytest.approx(DOING_NOTHING, abs=1e-6)


def test_who_is_not_changed_is_left_out(make_asked: MakeAsked) -> None:
    before = latents(3, 5)
    tally = tallied(make_asked, before, before, torch.full((3, 1), 0.5))
    assert tally.summary(0) == {} and tally.per_image() == {}


def test_without_images_there_is_no_entry() -> None:
    assert MinimalityTally(references()).summary(0) == {}
