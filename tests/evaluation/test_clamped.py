"""An answer that leaves [0,1] is scored as the picture that would be saved: its clamped copy."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.evaluation.asked import Answer, Asked, Method, Tally
from civae_core.evaluation.average_effects import average_effects, effect_groups
from civae_core.evaluation.effect_errors import MeanEffectTally, groups_and_truth
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question, ask
from civae_core.evaluation.realism import Extractor, RealismTally, real_features
from civae_core.evaluation.scores import counterfactual_scores
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.model.stored import StoredModel

CPU = torch.device("cpu")
COLOURS = Extractor("colours", lambda y: torch.nn.functional.avg_pool2d(y, 16).flatten(1))


def glaring(y_BCHW: Tensor) -> Tensor:
    """Twice the contrast: much of it is below 0 or above 1."""
    return 2 * y_BCHW - 0.5


class Glaring:
    """Answers with pictures that leave [0,1], or with their clamped copies."""

    def __init__(self, name: str, shown: Callable[[Tensor], Tensor]) -> None:
        self.name, self.shown = name, shown

    def answer(self, asked: Asked) -> Answer:
        assert asked.truth_BCHW is not None
        noisy_BCHW, mean_BCHW = glaring(asked.truth_BCHW), glaring(asked.y_BCHW)
        assert noisy_BCHW.min() < -0.2 and mean_BCHW.max() > 1.2, "else this test says nothing"
        return Answer(self.shown(noisy_BCHW), self.shown(mean_BCHW))


WILD, CLAMPED = Glaring("wild", lambda y: y), Glaring("clamped", lambda y: y.clamp(0, 1))


@pytest.fixture
def question(faces: PreparedData) -> Question:
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"])
    return ask(faces, roles, labelled_rows(faces, roles, "test"))[0]


def counterfactuals(question: Question, faces: PreparedData) -> Tally:
    return CounterfactualTally()


def mean_effects(question: Question, faces: PreparedData) -> Tally:
    known = groups_and_truth(question, faces, [], CPU)
    assert known is not None
    return MeanEffectTally(*known)


def realism(question: Question, faces: PreparedData) -> Tally:
    real = real_features(faces, COLOURS, CPU)
    assert real is not None
    return RealismTally(real)


@pytest.mark.parametrize("make", [counterfactuals, mean_effects, realism])
def test_each_tally_scores_the_clamped_copy(
    question: Question, faces: PreparedData, make: Callable[[Question, PreparedData], Tally]
) -> None:
    methods: list[Method] = [WILD, CLAMPED]
    found = counterfactual_scores(
        methods, faces, question, lambda: [make(question, faces)], yardstick=None, device=CPU, seed=0
    )
    assert found["wild"].entries == found["clamped"].entries != {}


def test_the_reports_mean_effects_are_of_clamped_copies(
    question: Question, faces: PreparedData, make_stored: Callable[..., StoredModel]
) -> None:
    groups = effect_groups(question, [], fewest=1)
    methods = [WILD, CLAMPED]
    for method in methods:
        cast(Any, method).stored = make_stored()  # draws from the prior come beside them
    found = average_effects(cast(list[TrainedModel], methods), faces, question, groups, CPU, seed=0)
    assert torch.equal(found["wild"], found["clamped"]) and found["wild"].abs().max() > 0
