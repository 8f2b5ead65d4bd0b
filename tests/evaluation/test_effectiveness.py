"""Effectiveness: the scorer's verdicts against scikit-learn's scores, and what is absent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.effectiveness import EffectivenessTally
from civae_core.model.distributions import standard_normal
from civae_core.yardstick import Reading

YOUNG, AGE = Attribute("Young", "binary"), Attribute("Age", "continuous", mean=40.0, std=10.0)
MakeAsked = Callable[..., Asked]


class Judge:
    """Stands for a yardstick that learned some attributes."""

    def __init__(self, *attributes: Attribute) -> None:
        self.attributes = attributes

    def index(self, name: str) -> int:
        return [attribute.name for attribute in self.attributes].index(name)


def reading(outputs_BA: Tensor) -> Reading:
    return Reading(outputs_BA, outputs_BA, standard_normal(len(outputs_BA), 1, like=outputs_BA))


def seen(outputs_BA: Tensor, mean_BA: Tensor | None = None) -> Seen:
    mean = None if mean_BA is None else reading(mean_BA)
    return Seen(reading(outputs_BA), mean, mean)


def tallied(
    make_asked: MakeAsked,
    outputs_NT: Tensor,
    t_new_NT: Tensor,
    attributes: list[Attribute],
    t_NT: Tensor | None = None,
    learned: list[Attribute] | None = None,
    mean_NT: Tensor | None = None,
) -> EffectivenessTally:
    """Tally outputs for `attributes`, seven images at a time; unless stated, every factual treatment is 1 − t'."""
    t_NT = 1 - t_new_NT if t_NT is None else t_NT
    # Another attribute stands before them, as in the table of any real data.
    judge: Any = Judge(Attribute("Hat", "binary"), *(learned or attributes))
    tally = EffectivenessTally(judge, attributes)

    def padded(values_BT: Tensor) -> Tensor:
        return torch.cat([torch.full((len(values_BT), 1), 9.0), values_BT], dim=1)

    for rows in torch.arange(len(outputs_NT)).split(7):
        y_BCHW = torch.zeros(len(rows), 3, 16, 16)
        asked = make_asked(y_BCHW, t_BT=t_NT[rows], t_new_BT=t_new_NT[rows])
        mean_BA = None if mean_NT is None else padded(mean_NT[rows])
        tally.add(asked, Answer(y_BCHW), seen(padded(outputs_NT[rows]), mean_BA))
    return tally


def test_scores_agree_with_sklearn_over_batches(make_asked: MakeAsked) -> None:
    generator = torch.Generator().manual_seed(0)
    meant_N = (torch.rand(40, generator=generator) < 0.6).float()
    logit_N = 2 * meant_N - 1 + 1.5 * torch.randn(40, generator=generator)
    tally = tallied(make_asked, logit_N[:, None], meant_N[:, None], [YOUNG])
    entry = tally.summary(0)["effectiveness"]["Young"]
    found_N = (logit_N > 0).numpy()
    assert entry["accuracy"]["mean"] == pytest.approx(accuracy_score(meant_N, found_N))
    assert entry["accuracy"]["lo"] < entry["accuracy"]["mean"] < entry["accuracy"]["hi"]
    assert entry["f1"] == pytest.approx(f1_score(meant_N, found_N))
    assert entry["auc"] == pytest.approx(roc_auc_score(meant_N, logit_N))
    assert torch.equal(tally.per_image()["effective"], ((logit_N > 0) == (meant_N > 0.5)).double())
    assert "effectiveness_mean_image" not in tally.summary(0)


@pytest.mark.parametrize("intended", [0.0, 1.0])
def test_where_only_one_value_is_intended_what_needs_both_is_absent(
    make_asked: MakeAsked, intended: float
) -> None:
    logit_N1 = torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None]
    entry = tallied(make_asked, logit_N1, torch.full((4, 1), intended), [YOUNG]).summary(0)["effectiveness"]
    assert set(entry["Young"]) == {"accuracy"}
    assert entry["Young"]["accuracy"]["mean"] == (0.75 if intended else 0.25)


def test_images_that_had_the_intended_value_already_prove_nothing(make_asked: MakeAsked) -> None:
    meant_N1, t_N1 = torch.zeros(5, 1), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])[:, None]
    copied_N1 = torch.where(t_N1 > 0, 3.0, -3.0)
    entry = tallied(make_asked, copied_N1, meant_N1, [YOUNG], t_NT=t_N1).summary(0)["effectiveness"]
    accuracy = entry["Young"]["accuracy"]
    assert accuracy["mean"] == accuracy["lo"] == 0.0, "returning the input makes nobody old"
    assert accuracy["hi"] > 0.0, "of so few images"
    untouched = tallied(make_asked, copied_N1, t_N1, [YOUNG], t_NT=t_N1)
    assert untouched.summary(0) == {} and untouched.per_image() == {}


def test_half_a_dose_of_a_binary_treatment_has_no_right_answer(make_asked: MakeAsked) -> None:
    meant_N1 = torch.tensor([0.0, 0.3, 0.4, 1.5])[:, None]
    tally = tallied(make_asked, torch.ones(4, 1), meant_N1, [YOUNG], t_NT=torch.ones(4, 1))
    accuracy = tally.summary(0)["effectiveness"]["Young"]["accuracy"]
    assert accuracy["mean"] == 0.5, "of 0 and of 1.5"
    effective_N = tally.per_image()["effective"]
    assert effective_N.isnan().tolist() == [False, True, True, False]
    assert effective_N.nanmean() == accuracy["mean"]


def test_continuous_treatments_are_compared_in_their_own_units(make_asked: MakeAsked) -> None:
    """The units are the scorer's, since the model was standardised by other data."""
    intended_N1 = torch.linspace(20, 70, 12)[:, None]
    standardised_N1 = (intended_N1 + 3.0 - 50.0) / 20.0  # seen 3 years older than meant
    seen_as = Attribute("Age", "continuous", mean=50.0, std=20.0)
    entry = tallied(make_asked, standardised_N1, intended_N1, [AGE], learned=[seen_as]).summary(0)
    age = entry["effectiveness"]["Age"]
    assert [age["mae"][key] for key in ("mean", "lo", "hi")] == pytest.approx([3.0] * 3, abs=1e-4)
    assert age["correlation"] == pytest.approx(1.0)
    constant = tallied(make_asked, torch.ones(3, 1), torch.full((3, 1), 70.0), [AGE]).summary(0)
    assert set(constant["effectiveness"]["Age"]) == {"mae"}
    assert constant["effectiveness"]["Age"]["mae"]["mean"] == pytest.approx(20.0), "70 meant, 40 + 10 seen"


def test_a_continuous_treatment_is_also_held_against_what_shows_in_the_truth(make_asked: MakeAsked) -> None:
    """In years; the scorer's standard deviation is 20 years, and it sees every age above 60 as 60."""
    judge: Any = Judge(Attribute("Age", "continuous", mean=50.0, std=20.0))
    y_BCHW, intended_B1 = torch.zeros(4, 3, 16, 16), torch.tensor([[30.0], [50.0], [80.0], [80.0]])

    def seeing(years_B1: Tensor) -> Tensor:
        return (years_B1.clamp(max=60.0) - 50.0) / 20.0

    asked = make_asked(
        y_BCHW,
        t_BT=torch.tensor([[40.0], [40.0], [40.0], [80.0]]),
        t_new_BT=intended_B1,
        seen_truth=reading(seeing(intended_B1)),
    )
    perfect = EffectivenessTally(judge, [AGE])
    perfect.add(asked, Answer(y_BCHW), seen(seeing(intended_B1)))
    entry = perfect.summary(0)["effectiveness"]["Age"]
    assert entry["mae"]["mean"] == pytest.approx(20 / 3, abs=1e-4), (
        "80 meant, 60 seen, in one of three that change"
    )
    assert entry["mae_from_truth"]["mean"] == pytest.approx(0.0, abs=1e-4)
    late = EffectivenessTally(judge, [AGE])
    late.add(asked, Answer(y_BCHW), seen(seeing(intended_B1 - 4), seeing(intended_B1 - 1)))
    assert late.summary(0)["effectiveness"]["Age"]["mae_from_truth"]["mean"] == pytest.approx(8 / 3, abs=1e-4)
    mean_image = late.summary(0)["effectiveness_mean_image"]["Age"]
    assert mean_image["mae_from_truth"]["mean"] == pytest.approx(2 / 3, abs=1e-4)


def test_without_a_truth_nothing_is_held_against_it(make_asked: MakeAsked) -> None:
    tally = tallied(make_asked, torch.ones(3, 1), torch.full((3, 1), 70.0), [AGE])
    assert "mae_from_truth" not in tally.summary(0)["effectiveness"]["Age"]


def test_of_several_treatments_those_that_change_are_judged(make_asked: MakeAsked) -> None:
    old_hat = Attribute("Old_Hat", "binary")
    t_NT = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    outputs_NT = torch.tensor([[-2.0, -5.0], [2.0, -5.0], [-2.0, 5.0]])
    one = tallied(make_asked, outputs_NT, torch.tensor([[0.0, 1.0]] * 3), [YOUNG, old_hat], t_NT=t_NT)
    assert set(one.summary(0)["effectiveness"]) == {"Young"}
    assert one.per_image()["effective"].tolist() == [1.0, 0.0, 1.0]
    both = tallied(make_asked, outputs_NT, torch.tensor([[0.0, 0.0]] * 3), [YOUNG, old_hat], t_NT=t_NT)
    assert {name: e["accuracy"]["mean"] for name, e in both.summary(0)["effectiveness"].items()} == {
        "Young": 0.5,
        "Old_Hat": pytest.approx(2 / 3),
    }
    assert both.per_image()["effective"].tolist() == [1.0, 0.0, 0.0], "all of them must be right"


@pytest.mark.parametrize("known", [Attribute("Hat", "binary"), Attribute("Young", "continuous")])
def test_a_treatment_that_was_not_learned_or_as_another_kind_is_absent(
    make_asked: MakeAsked, known: Attribute
) -> None:
    judge: Any = Judge(known)
    tally = EffectivenessTally(judge, [YOUNG])
    y_BCHW = torch.zeros(2, 3, 16, 16)
    tally.add(make_asked(y_BCHW), Answer(y_BCHW), seen(torch.ones(2, 1)))
    assert tally.summary(0) == {} and tally.per_image() == {}
    with pytest.raises(ValueError, match="scorer"):
        tally.add(make_asked(y_BCHW), Answer(y_BCHW), None)


def test_the_mean_image_is_judged_apart(make_asked: MakeAsked) -> None:
    entries = tallied(
        make_asked, torch.ones(9, 1), torch.ones(9, 1), [YOUNG], mean_NT=-torch.ones(9, 1)
    ).summary(0)
    assert entries["effectiveness"]["Young"]["accuracy"]["mean"] == 1.0
    assert entries["effectiveness_mean_image"]["Young"]["accuracy"]["mean"] == 0.0
