"""How near are a method's mean effects to the true ones: of everyone (ATE) and by covariate (CATE)?

Both relative to the size of the true mean effect: 0 is perfect, and copying the input scores 1. A model whose effect
is right on average may still be wrong in each group; only the second number shows it.
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
    effect_groups,
    effects_from_prior,
    in_batches,
    members,
    prior_noise,
    raising,
)
from civae_core.evaluation.group_means import GroupMeans, MeanErrors, affordable_blocks, apart_from, compared
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question
from civae_core.evaluation.subgroups import FEWEST


class MeanEffectTally:
    """Collects mean effects of raising the treatment, of everyone and by covariate, from photographs (τ = 1)."""

    def __init__(self, groups: Sequence[EffectGroup], truth: GroupMeans) -> None:
        """`truth` has the true mean effects of the groups, of which the first is everyone."""
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
        """What cannot be told, as of a true mean effect that is nil, is absent.

        - `ate_error`: ‖mean − true mean‖ / ‖true mean‖ of everyone's effect images, a number, and
          `ate_error_interval`, the same with its interval over subjects {"mean", "lo", "hi", "chance", "corrected"};
        - `cate_error`: {"mean", "lo", "hi", "chance", "corrected", "worst", "groups"} of the groups by covariate.

        Answers that are right on average but not for each subject do not score 0 but about `chance`, which falls
        with the root of the number of subjects; `corrected` is without it (see `MeanErrors.mean`).
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
    """Everyone and both values of each binary covariate, with their true mean effects.

    None where the truth is not known, or nobody's treatment changes. Either value of a covariate needs FEWEST
    subjects: a mean over fewer says little of a population.
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
    """`ate_error_prior` and `cate_error_prior`: mean effects from draws of the prior, without any photograph.

    For each test subject one is drawn from p(z|x,t) with its covariates and doses. Since the true mean is that of
    the test subjects, whose own noise the prior does not know, a faultless prior does not score 0 but about
    `chance`, which the entries give beside {"mean", "lo", "hi"}, as those from photographs do.
    """
    known = groups_and_truth(question, data, method.stored.card.roles.covariates, device)
    if known is None:
        return {}
    groups, truth = known
    model = method.stored.model
    means = GroupMeans(members(groups), len(truth.count_KG))
    eta_DNZ = prior_noise(model, len(question.chosen), seed)
    apart = KeptRows()
    for items, asked in in_batches(question, data, device):
        assert asked.truth_BCHW is not None
        effect_BCHW = effects_from_prior(model, asked, eta_DNZ[:, items])
        means.add(items.start, effect_BCHW)
        apart.add(apart_from(effect_BCHW, raising(asked, asked.truth_BCHW - asked.y_BCHW)))
    errors = MeanErrors.of(means, truth, apart.all)
    everyone = {"ate_error_prior": errors.mean([0])} if errors.known([0]) else {}
    return everyone | _by_covariate("cate_error_prior", groups, errors)


def _by_covariate(name: str, groups: Sequence[EffectGroup], errors: MeanErrors) -> dict[str, Any]:
    """The entry over all groups but the first, which is everyone."""
    found = compared(errors, [g.label for g in groups], [g.count for g in groups], range(1, len(groups)))
    return {name: found} if found else {}
