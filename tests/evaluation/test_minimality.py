"""CLD: a brute-force loop over pairs, what doing nothing scores, and whom it leaves out."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.minimality import (
    DOING_NOTHING,
    LatentReferences,
    MinimalityTally,
    latent_references,
    pairwise_kl,
)
from civae_core.model.distributions import DiagonalNormal
from civae_core.yardstick import Reading, Yardstick

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
    """Latent references from images other than those asked about."""
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


def test_real_images_are_read_once_for_all_questions_about_the_same_people(faces: PreparedData) -> None:
    looks: list[int] = []

    def read(y_BCHW: Tensor) -> Reading:
        looks.append(len(y_BCHW))
        return reading(DiagonalNormal(y_BCHW.mean(dim=(2, 3)), y_BCHW.new_zeros(len(y_BCHW), 3)))

    yardstick = cast(Yardstick, SimpleNamespace(read=read, known_latents={}))
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"])
    chosen = labelled_rows(faces, roles, "test")
    first, again = (latent_references(faces, chosen, 0, yardstick, torch.device("cpu")) for _ in range(2))
    assert sum(looks) == len(chosen)
    for value, (rows_M, latent) in first.by_value.items():
        assert (faces.column("Young")[rows_M] == value).all()
        expected_MC = faces.images(rows_M).float().mean(dim=(2, 3)) / 255
        assert torch.allclose(latent.mean_BZ, expected_MC) and again.by_value[value][1] is latent
    fewer = latent_references(faces, chosen[:20], 0, yardstick, torch.device("cpu"))
    assert sum(len(rows_M) for rows_M, _ in fewer.by_value.values()) == 20
