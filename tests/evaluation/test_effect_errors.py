"""Mean effects by covariate: methods whose errors are known, from photographs and from the prior."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.evaluation import average_effects
from civae_core.evaluation.asked import Answer, Asked, Method
from civae_core.evaluation.average_effects import (
    EffectGroup,
    PriorNoise,
    effect_groups,
    members,
    pairs_from_prior,
    raising,
)
from civae_core.evaluation.average_effects import average_effects as mean_effects
from civae_core.evaluation.effect_errors import MeanEffectTally, groups_and_truth, prior_effect_scores
from civae_core.evaluation.group_means import GroupMeans
from civae_core.evaluation.measures import measures_present
from civae_core.evaluation.methods import CopyInput, TrainedModel, TrueCounterfactual
from civae_core.evaluation.question import KnownTruth, Question
from civae_core.evaluation.scores import counterfactual_scores
from civae_core.evaluation.seeds import summarise
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.model import DiagonalNormal
from civae_core.randomness import generator_for

CPU = torch.device("cpu")

COVARIATES = (
    Attribute("Male", "binary"),
    Attribute("Skin_Tone", "continuous"),
    Attribute("Eyeglasses", "binary"),
)
COUNT, SIZE = 300, 4
Effect = Callable[[Tensor], Tensor]


def pattern(seed: int, levels: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-levels, levels + 1, (3, SIZE, SIZE), generator=generator).float() / 255


FOR_ALL, FOR_MEN = pattern(1, 30), pattern(2, 30)


def true_effect(x_BX: Tensor) -> Tensor:
    """Effect of raising the treatment, which differs for men."""
    return FOR_ALL + x_BX[:, 0, None, None, None] * FOR_MEN


def average_for_all(x_BX: Tensor) -> Tensor:
    """The effect that is right on average over the cohort, and in no group of men or women."""
    return (FOR_ALL + men_share() * FOR_MEN).expand(len(x_BX), -1, -1, -1)


def men_share() -> float:
    return float(covariates()[:, 0].mean())


def covariates() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x_NX = torch.rand(COUNT, 3, generator=generator)
    x_NX[:, 0] = (x_NX[:, 0] < 0.3).float()
    x_NX[:, 2] = (torch.arange(COUNT) < 29).float()  # too few wear glasses
    return x_NX


class Cohort:
    """Grey pictures whose treatment moves each pixel by a known number of grey levels, back or forth."""

    channels, size = 3, SIZE

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(4)
        self.x_NX = covariates()
        self.t_NT = (torch.rand(COUNT, 1, generator=generator) < 0.6).float()
        untreated = torch.randint(90, 160, (COUNT, 3, SIZE, SIZE), generator=generator).float() / 255
        treated = untreated + true_effect(self.x_NX)
        is_treated = self.t_NT[:, :, None, None] > 0.5
        self.photographs = (torch.where(is_treated, treated, untreated) * 255).round().to(torch.uint8)
        self.truths = (torch.where(is_treated, untreated, treated) * 255).round().to(torch.uint8)

    def images(self, rows: Tensor) -> Tensor:
        return self.photographs[rows]

    def question(self) -> Question:
        chosen = LabelledRows(torch.arange(COUNT), self.x_NX, self.t_NT)
        truth = SimpleNamespace(images=lambda places: self.truths[places])
        known = KnownTruth(cast(Any, truth), torch.arange(COUNT))
        return Question(chosen, 1 - self.t_NT, {"Young": "flip"}, known)


class Adds:
    """Adds an effect to the photograph."""

    def __init__(self, name: str, effect: Effect) -> None:
        self.name, self.effect = name, effect

    def answer(self, asked: Asked) -> Answer:
        return Answer(asked.y_BCHW + asked.direction_B[:, None, None, None] * self.effect(asked.x_BX))


class KnownPrior:
    """A model whose decoder adds t times an effect to what its latent code paints."""

    latent = 2

    def __init__(self, effect: Effect, arms_apart: float = 0.0) -> None:
        self.effect, self.arms_apart = effect, arms_apart

    def prior_of(self, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        mean_BZ = (self.arms_apart * t_BT).expand(-1, self.latent)
        return DiagonalNormal(mean_BZ, torch.zeros_like(mean_BZ))

    def decode(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> Any:
        face_B111 = 0.5 + 0.05 * z_BZ.sum(dim=1).clamp(-2, 2)[:, None, None, None]
        return SimpleNamespace(mean_BCHW=face_B111 + t_BT[:, :, None, None] * self.effect(x_BX))


def with_prior(effect: Effect, **settings: float) -> TrainedModel:
    card = SimpleNamespace(roles=SimpleNamespace(covariates=COVARIATES))
    return TrainedModel("ours", cast(Any, SimpleNamespace(model=KnownPrior(effect, **settings), card=card)))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort()


def scored(cohort: Cohort, methods: Sequence[Method]) -> dict[str, dict[str, Any]]:
    question, data = cohort.question(), cast(PreparedData, cohort)
    known = groups_and_truth(question, data, COVARIATES, CPU)
    assert known is not None

    def tallies() -> list[Any]:
        return [CounterfactualTally(), MeanEffectTally(*known)]

    found = counterfactual_scores(methods, data, question, tallies, yardstick=None, device=CPU, seed=0)
    return {name: score.entries for name, score in found.items()}


def error_in(men: int) -> float:
    """‖average − true‖ / ‖true‖ of the effect that is right on average."""
    true = FOR_ALL + men * FOR_MEN
    return float((FOR_ALL + men_share() * FOR_MEN - true).norm() / true.norm())


def test_the_truth_scores_0_a_copy_1_and_half_the_effect_a_half(cohort: Cohort) -> None:
    half = Adds("half", lambda x_BX: true_effect(x_BX) / 2)
    found = scored(cohort, [TrueCounterfactual(), CopyInput(), half])
    for name, value in (("truth", 0.0), ("copy", 1.0), ("half", 0.5)):
        assert found[name]["ate_error"] == pytest.approx(value, abs=1e-6)
        interval = found[name]["ate_error_interval"]
        assert interval["lo"] <= interval["mean"] == found[name]["ate_error"] <= interval["hi"]
        entry = found[name]["cate_error"]
        assert [entry[key] for key in ("mean", "lo", "hi")] == pytest.approx([value] * 3, abs=1e-6)
        assert [row["group"] for row in entry["groups"]] != [] and len(entry["groups"]) == 2
        assert all(row["mean"] == pytest.approx(value, abs=1e-6) for row in entry["groups"])


def test_flips_of_both_kinds_do_not_cancel_in_the_average_effect() -> None:
    truth_NCHW = torch.full((4, 1, 2, 2), 0.4)
    y_NCHW = torch.full((4, 1, 2, 2), 0.2)
    mixed = torch.tensor([1.0, -1.0, 1.0, -1.0])  # of these, every other treatment is lowered

    def error(sign_N: Tensor, told_N: Tensor, share: float) -> dict[str, Any]:
        """Errors of an answer with `share` of the effect, for flips of direction `sign_N` reported as `told_N`."""
        before_N, after_N = (
            torch.where(sign_N[:, None, None, None] > 0, *images)
            for images in ((y_NCHW, truth_NCHW), (truth_NCHW, y_NCHW))
        )
        everyone, t_NT = EffectGroup("everyone", torch.ones(4, dtype=torch.bool)), torch.zeros(4, 1)
        asked = Asked(torch.arange(4), before_N, t_NT, t_NT, 1 - t_NT, told_N, after_N)
        truth = GroupMeans(members([everyone]))
        truth.add(0, raising(asked, after_N - before_N))
        tally = MeanEffectTally([everyone], truth)
        for part in torch.arange(4).split(3):
            batch = Asked(
                part, before_N[part], t_NT[part], t_NT[part], 1 - t_NT[part], told_N[part], after_N[part]
            )
            tally.add(batch, Answer(before_N[part] + share * (after_N - before_N)[part]))
        return tally.summary()

    for sign_N in (mixed.abs(), -mixed.abs(), mixed):
        assert error(sign_N, sign_N, share=0.0) == {"ate_error": pytest.approx(1.0)}
        assert error(sign_N, sign_N, share=0.5) == {"ate_error": pytest.approx(0.5)}
    assert error(mixed, mixed.abs(), share=0.5) == {}, "the mean effect is nil, and with it the question"


def test_answers_that_miss_each_subject_but_not_the_mean_score_chance(cohort: Cohort) -> None:
    def missed(x_BX: Tensor) -> Tensor:
        """The true effect, moved up or down by skin tone, which is uniform and unrelated to the effect."""
        return true_effect(x_BX) + (x_BX[:, 1, None, None, None] - covariates()[:, 1].mean()) * FOR_ALL

    found = scored(cohort, [Adds("missed", missed), CopyInput()])
    everyone = found["missed"]["ate_error_interval"]
    assert everyone["mean"] == found["missed"]["ate_error"]
    # Both have the spread of a uniform number over the root of so many subjects, but for men's larger effect.
    size = float(FOR_ALL.norm() / (FOR_ALL + men_share() * FOR_MEN).norm())
    assert everyone["chance"] == pytest.approx(size / (12 * COUNT) ** 0.5, rel=0.1)
    assert everyone["corrected"] <= everyone["mean"]
    entry = found["missed"]["cate_error"]
    assert all({"chance", "corrected"} <= set(row) for row in (entry, entry["worst"], *entry["groups"]))
    chance = {row["group"]: row["chance"] for row in entry["groups"]}
    assert chance["Male = 1"] > everyone["chance"] / size, "of fewer subjects"
    copy = found["copy"]["ate_error_interval"]
    assert copy["corrected"] == pytest.approx(1.0, abs=0.01), "a bias is not put down to chance"


def test_an_effect_that_is_right_on_average_only_is_found_out_by_group(cohort: Cohort) -> None:
    found = scored(cohort, [Adds("average", average_for_all)])["average"]
    # Both arms have their own share of men, and the noise of rounding is left.
    assert found["ate_error"] == pytest.approx(0.0, abs=0.02)
    entry = found["cate_error"]
    worst, best = entry["groups"]
    assert {worst["group"]: worst["n"], best["group"]: best["n"]} == {
        "Male = 1": int(cohort.x_NX[:, 0].sum()), "Male = 0": COUNT - int(cohort.x_NX[:, 0].sum())
    }  # fmt: skip
    assert entry["worst"] == worst and worst["group"] == "Male = 1"
    assert worst["mean"] == pytest.approx(error_in(men=1), abs=0.01)
    assert best["mean"] == pytest.approx(error_in(men=0), abs=0.01)
    assert entry["mean"] == pytest.approx((worst["mean"] + best["mean"]) / 2)
    assert error_in(men=0) > 0.1, "else this test says nothing"


def test_the_prior_is_judged_by_the_same_measure_without_photographs(cohort: Cohort) -> None:
    data, question = cast(PreparedData, cohort), cohort.question()

    def of(effect: Effect, **settings: float) -> dict[str, Any]:
        return prior_effect_scores(with_prior(effect, **settings), data, question, CPU, seed=0)

    right, wrong, none = of(true_effect), of(average_for_all), of(lambda x_BX: 0 * true_effect(x_BX))
    assert set(right) == {"ate_error_prior", "cate_error_prior"}
    assert right["ate_error_prior"]["mean"] == pytest.approx(0.0, abs=1e-3), "both doses share their noise"
    assert right["cate_error_prior"]["mean"] == pytest.approx(0.0, abs=1e-3)
    assert none["ate_error_prior"]["mean"] == pytest.approx(1.0)
    assert none["cate_error_prior"]["worst"]["mean"] == pytest.approx(1.0)
    assert wrong["ate_error_prior"]["mean"] == pytest.approx(0.0, abs=1e-3)
    assert wrong["cate_error_prior"]["worst"]["group"] == "Male = 1"
    assert wrong["cate_error_prior"]["worst"]["mean"] == pytest.approx(error_in(men=1), abs=0.01)
    apart = of(true_effect, arms_apart=1.0)["ate_error_prior"]["mean"]
    assert "chance" in right["ate_error_prior"] and "chance" in right["cate_error_prior"]["worst"]
    assert apart > 0.5, "what the treatment does through z is part of its effect"


def test_prior_and_photographs_do_not_depend_on_batches(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, question = cast(PreparedData, cohort), cohort.question()
    model = with_prior(true_effect, arms_apart=1.0)
    whole = prior_effect_scores(model, data, question, CPU, seed=0)
    monkeypatch.setattr(average_effects, "BATCH", 11)
    batched = prior_effect_scores(model, data, question, CPU, seed=0)
    assert batched["ate_error_prior"] == pytest.approx(whole["ate_error_prior"])
    other = prior_effect_scores(model, data, question, CPU, seed=1)
    assert other["ate_error_prior"]["mean"] != whole["ate_error_prior"]["mean"]


def test_noise_is_the_same_however_many_ask_for_it_at_once_and_however_often_it_is_drawn() -> None:
    model: Any = SimpleNamespace(latent=16)
    few, many = PriorNoise(model, seed=3), PriorNoise(model, seed=3, draws=2)
    whole_DNZ = many.next(150)
    assert torch.equal(torch.cat([few.next(count) for count in (1, 80, 63, 6)], dim=1)[0], whole_DNZ[0])
    assert not torch.equal(whole_DNZ[0], whole_DNZ[1])
    # As when the noise of everyone was drawn at once, so that numbers in the documents stay as they are.
    once_NZ = torch.randn(150, 16, generator=generator_for(3, "effects-from-prior", 1))
    assert torch.equal(whole_DNZ[1], once_NZ)


def test_neither_many_subjects_nor_many_draws_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = KnownPrior(true_effect)
    noise = PriorNoise(model, seed=0, draws=20)
    for _ in range(20):
        eta_DBZ = noise.next(30)
        held = eta_DBZ.untyped_storage().nbytes() // eta_DBZ.element_size()
        assert held <= 20 * (average_effects.BLOCK + 30) * model.latent
    images: list[weakref.ref[Tensor]] = []
    decode = average_effects.decode_prior

    def decoded(*of: Any) -> Any:
        def clamp(low: float, high: float) -> Tensor:
            assert sum(image() is not None for image in images) <= 2, "the first, or the sum, and the last"
            image_BCHW = decode(*of).clamp(low, high)
            images.append(weakref.ref(image_BCHW))
            return image_BCHW

        return SimpleNamespace(clamp=clamp)

    monkeypatch.setattr(average_effects, "decode_prior", decoded)
    zero_B1 = torch.zeros(30, 1)
    pairs_from_prior(model, covariates()[:30], zero_B1, zero_B1 + 1, eta_DBZ)
    assert len(images) == 40


def test_what_cannot_be_told_is_absent(cohort: Cohort) -> None:
    data, question = cast(PreparedData, cohort), cohort.question()
    unknown = replace(question, truth=None)
    assert groups_and_truth(unknown, data, COVARIATES, CPU) is None
    assert prior_effect_scores(with_prior(true_effect), data, unknown, CPU, seed=0) == {}
    still = replace(question, t_new_NT=question.chosen.t_NT)
    assert groups_and_truth(still, data, COVARIATES, CPU) is None
    known = groups_and_truth(question, data, COVARIATES[1:2], CPU)
    assert known is not None and [group.label for group in known[0]] == ["everyone"]
    tally = MeanEffectTally(*known)
    batch = question.batch(data, slice(None), CPU)
    tally.add(batch, Answer(batch.y_BCHW))
    assert set(tally.summary()) == {"ate_error", "ate_error_interval"} and tally.per_image() == {}


def test_seeds_and_titles(cohort: Cohort) -> None:
    entry = scored(cohort, [Adds("average", average_for_all)])["average"]
    prior = prior_effect_scores(
        with_prior(average_for_all), cast(PreparedData, cohort), cohort.question(), CPU, 0
    )
    both = summarise([entry | prior, entry | prior])
    assert both["cate_error"]["sd"] == 0.0 and both["cate_error"]["worst"]["group"] == "Male = 1"
    titles = [measure.title for measure in measures_present({"ours": both})]
    assert [title for title in titles if title.startswith("average effect error")] == [
        "average effect error",
        "average effect error, from the prior",
        "average effect error by covariate",
        "average effect error, worst group",
        "average effect error by covariate, from the prior",
        "average effect error, worst group, from the prior",
    ]


def test_the_reports_mean_effects_are_those_that_are_scored(cohort: Cohort) -> None:
    data, question = cast(PreparedData, cohort), cohort.question()
    groups = effect_groups(question, COVARIATES, fewest=30)

    class Answers(Adds):
        stored = with_prior(true_effect).stored

    method = cast(TrainedModel, Answers("average", average_for_all))
    found = mean_effects([method], data, question, groups, CPU, seed=0)
    error_G = (found["average"] - found["truth"]).flatten(1).norm(dim=1) / found["truth"].flatten(1).norm(
        dim=1
    )
    entry = scored(cohort, [method])["average"]
    by_label = {row["group"]: row["mean"] for row in entry["cate_error"]["groups"]}
    assert float(error_G[0]) == pytest.approx(entry["ate_error"], abs=1e-5)
    assert error_G[1:].tolist() == pytest.approx([by_label[g.label] for g in groups[1:]], abs=1e-5)
    torch.testing.assert_close(found["truth"][0], found["from prior"][0], rtol=0.0, atol=1e-3)
