"""How close a method's mean effects are to the true ones, over everyone (ATE) and by covariate (CATE).

Both errors are relative to the size of the true mean effect: 0 is perfect, and copying the input scores 1. A model
whose effect is right on average may still be wrong in each group; only the second error shows it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.average_effects import (
    EffectGroup,
    PriorNoise,
    effect_groups,
    effects_from_prior,
    in_batches,
    members,
    raising,
)
from civae_core.evaluation.group_means import GroupMeans, MeanErrors, affordable_blocks, apart_from, compared
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question
from civae_core.evaluation.subgroups import FEWEST


class MeanEffectTally:
    """Collects mean effects of raising the treatment, over everyone and by covariate, from photographs (τ = 1)."""

    def __init__(self, groups: Sequence[EffectGroup], truth: GroupMeans) -> None:
        """`truth` holds the true mean effects of `groups`, the first of which is everyone."""
        self._groups = groups
        self._truth = truth
        self._means = GroupMeans(members(groups), len(truth.count_KG))
        self._apart = KeptRows()
        self._added = 0

    def add(self, asked: Asked, answer: Answer, seen: Seen | None = None) -> None:
        """
        Raises:
            ValueError: the truth is not known.
        """
        if asked.truth_BCHW is None:
            raise ValueError("errors of mean effects need the truth")
        estimate_BCHW = answer.with_noise_BCHW.clamp(0.0, 1.0)
        self._means.add(self._added, raising(asked, estimate_BCHW - asked.y_BCHW))
        self._apart.add(apart_from(estimate_BCHW, asked.truth_BCHW))
        self._added += len(asked.y_BCHW)

    def per_image(self) -> dict[str, Tensor]:
        return {}

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Errors of the mean effects; what is undefined, because a true mean effect is 0, is absent.

        - `ate_error`: ‖mean − true mean‖ / ‖true mean‖ of everyone's effect images, a number, and
          `ate_error_interval`, the same with its interval over subjects {"mean", "lo", "hi", "chance", "corrected"};
        - `cate_error`: {"mean", "lo", "hi", "chance", "corrected", "worst", "groups"} for the groups by covariate.

        Answers that are right on average but not for each subject score about `chance` instead of 0. `chance` falls
        with the square root of the number of subjects; `corrected` has it removed (see `MeanErrors.mean`).
        """
        errors = MeanErrors.of(self._means, self._truth, self._apart.all)
        entries: dict[str, Any] = {}
        if errors.known([0]):
            everyone = errors.mean([0])
            entries["ate_error"] = everyone["mean"]
            if "lo" in everyone:
                entries["ate_error_interval"] = everyone
        return entries | _by_covariate("cate_error", self._groups, errors)


def groups_and_truth(
    question: Question, data: PreparedData, covariates: Sequence[Attribute], device: torch.device
) -> tuple[list[EffectGroup], GroupMeans] | None:
    """The group of everyone and one group per value of each binary covariate, with their true mean effects.

    None where the truth is not known or nobody's treatment changes. Each value of a covariate needs FEWEST subjects:
    a mean over fewer says little about a population.
    """
    groups = effect_groups(question, covariates, fewest=FEWEST)
    if question.truth is None or not groups[0].count:
        return None
    truth = GroupMeans(members(groups), affordable_blocks(len(groups), data.channels * data.size**2))
    for items, asked in in_batches(question, data, device):
        assert asked.truth_BCHW is not None
        truth.add(items.start, raising(asked, asked.truth_BCHW - asked.y_BCHW))
    return groups, truth


@torch.no_grad()
def prior_effect_scores(
    method: TrainedModel, data: PreparedData, question: Question, device: torch.device, seed: int
) -> dict[str, Any]:
    """`ate_error_prior` and `cate_error_prior`: errors of mean effects from prior draws, without any photograph.

    For each test subject, one is drawn from p(z|x,t) with the same covariates and doses. The true mean is that of
    the test subjects, whose own noise the prior does not know. Even a faultless prior therefore scores about `chance`
    instead of 0; as for photographs, the entries give `chance` beside {"mean", "lo", "hi"}.
    """
    known = groups_and_truth(question, data, method.stored.card.roles.covariates, device)
    if known is None:
        return {}
    groups, truth = known
    model = method.stored.model
    means = GroupMeans(members(groups), len(truth.count_KG))
    noise = PriorNoise(model, seed)
    apart = KeptRows()
    for items, asked in in_batches(question, data, device):
        assert asked.truth_BCHW is not None
        effect_BCHW = effects_from_prior(model, asked, noise.next(len(asked.y_BCHW)))
        means.add(items.start, effect_BCHW)
        apart.add(apart_from(effect_BCHW, raising(asked, asked.truth_BCHW - asked.y_BCHW)))
    errors = MeanErrors.of(means, truth, apart.all)
    everyone = {"ate_error_prior": errors.mean([0])} if errors.known([0]) else {}
    return everyone | _by_covariate("cate_error_prior", groups, errors)


def _by_covariate(name: str, groups: Sequence[EffectGroup], errors: MeanErrors) -> dict[str, Any]:
    """The entry `name` over all groups but the first, which is everyone."""
    found = compared(errors, [g.label for g in groups], [g.count for g in groups], range(1, len(groups)))
    return {name: found} if found else {}
