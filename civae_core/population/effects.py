"""Mean images before and after an intervention, from photographs and from the prior, beside the true means."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.average_effects import (
    EffectGroup,
    PriorNoise,
    in_batches,
    members,
    pairs_from_prior,
)
from civae_core.evaluation.group_means import GroupMeans, MeanErrors, affordable_blocks, apart_from
from civae_core.evaluation.methods import TrainedModel
from civae_core.model.stored import StoredModel
from civae_core.population.subjects import Subjects
from civae_core.progress import progress

POSTERIOR, PRIOR, TRUTH = "posterior", "prior", "truth"


@dataclass(frozen=True)
class MeanPair:
    """Mean images of G groups, floats in [0,1] [G,C,S,S]."""

    before_GCHW: Tensor
    after_GCHW: Tensor

    @property
    def effect_GCHW(self) -> Tensor:
        return self.after_GCHW - self.before_GCHW

    def size(self, group: int) -> float:
        """Root mean square of the mean effect over pixels and channels."""
        return float(self.effect_GCHW[group].square().mean().sqrt())


@dataclass(frozen=True)
class PopulationEffects:
    """What an intervention does on average, by the source of the answer: posterior, prior or truth."""

    subjects: Subjects
    groups: list[EffectGroup]
    means: dict[str, MeanPair]
    errors: dict[str, MeanErrors]
    """Errors of posterior and prior, if the truth is known for everyone."""


@torch.no_grad()
def population_effects(
    stored: StoredModel,
    data: PreparedData,
    subjects: Subjects,
    groups: Sequence[EffectGroup],
    sources: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> PopulationEffects:
    """Compute the mean images of each group in one streaming pass.

    "Before" shows the subjects as they are, "after" as they would be. If the intervention is a flip, "before" is each
    subject at the lower dose and "after" at the higher one, whichever of the two was photographed. The posterior's
    images are photographs and counterfactuals (τ = 1); the prior's are decoded draws with the subjects' covariates
    and doses.

    Args:
        sources: posterior, prior or both; the truth is added if it is known for everyone.
        draws: number of draws from the prior per subject.
    """
    device = next(stored.model.parameters()).device
    method = TrainedModel("model", stored)
    has_truth = subjects.with_truth == len(subjects)
    wanted = [*sources, *([TRUTH] if has_truth else [])]
    member_GN = members(groups)
    blocks = affordable_blocks(len(groups), data.channels * data.size**2) if has_truth else 1
    before = {source: GroupMeans(member_GN) for source in wanted}
    effect = {source: GroupMeans(member_GN, blocks) for source in wanted}
    noise = PriorNoise(stored.model, seed, draws if PRIOR in sources else 1)
    apart: list[Tensor] = []
    with progress("mean effects", len(subjects)) as bar:
        for start, question in subjects.questions():
            for items, asked in in_batches(question, data, device):
                place = start + items.start
                eta_DBZ = noise.next(len(asked.y_BCHW))
                effects = {}
                for source in wanted:
                    old_BCHW, new_BCHW = _pair(source, method, asked, eta_DBZ)
                    if "flip" in subjects.do.values():
                        old_BCHW, new_BCHW = _by_dose(asked, old_BCHW, new_BCHW)
                    before[source].add(place, old_BCHW)
                    effects[source] = new_BCHW - old_BCHW
                    effect[source].add(place, effects[source])
                if has_truth and PRIOR in sources:
                    apart.append(apart_from(effects[PRIOR], effects[TRUTH]))
                bar.advance(len(asked.y_BCHW))
    means = {
        source: MeanPair(
            before[source].mean_GCHW.float(), (before[source].mean_GCHW + effect[source].mean_GCHW).float()
        )
        for source in wanted
    }
    errors = {
        source: MeanErrors.of(effect[source], effect[TRUTH], torch.cat(apart) if source == PRIOR else None)
        for source in (sources if has_truth else ())
    }
    return PopulationEffects(subjects, list(groups), means, errors)


def _pair(source: str, method: TrainedModel, asked: Asked, eta_DBZ: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B,C,S,S] under the factual and the intended treatment."""
    if source == PRIOR:
        return pairs_from_prior(method.stored.model, asked.x_BX, asked.t_BT, asked.t_new_BT, eta_DBZ)
    if source == TRUTH:
        assert asked.truth_BCHW is not None
        return asked.y_BCHW, asked.truth_BCHW
    return asked.y_BCHW, method.answer(asked).with_noise_BCHW.clamp(0, 1)


def _by_dose(asked: Asked, old_BCHW: Tensor, new_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The same images with the lower dose first."""
    lowered_B111 = (asked.direction_B < 0)[:, None, None, None]
    return (
        torch.where(lowered_B111, new_BCHW, old_BCHW),
        torch.where(lowered_B111, old_BCHW, new_BCHW),
    )
