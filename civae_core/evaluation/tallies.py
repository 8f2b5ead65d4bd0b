"""Choose the scores for a question, by what the data knows and what the instruments can judge."""

from collections.abc import Callable

import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labels_of
from civae_core.evaluation.asked import Tally
from civae_core.evaluation.descendants import DescendantTally
from civae_core.evaluation.effect_errors import MeanEffectTally, groups_and_truth
from civae_core.evaluation.effectiveness import EffectivenessTally
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.leak import LeakTally, watched
from civae_core.evaluation.minimality import MinimalityTally, latent_references
from civae_core.evaluation.question import Question
from civae_core.evaluation.realism import RealismTally, real_features
from civae_core.evaluation.shifts import learned
from civae_core.evaluation.tally import CounterfactualTally


def tally_maker(
    question: Question,
    data: PreparedData,
    roles: AttributeRoles,
    instruments: Instruments,
    device: torch.device,
) -> Callable[[], list[Tally]]:
    """A function that makes one method's tallies; the data that they compare with is read once, here."""
    makers: list[Callable[[], Tally]] = []
    if question.truth is not None:
        makers.append(lambda: CounterfactualTally(instruments.lpips))
    if (known := groups_and_truth(question, data, roles.covariates, device)) is not None:
        groups, truth = known
        makers.append(lambda: MeanEffectTally(groups, truth))
    if (yardstick := instruments.yardstick) is not None:
        attributes = watched(roles, yardstick, question.do)
        labels_NA = labels_of(attributes, data)
        makers.append(lambda: EffectivenessTally(yardstick, roles.treatments))
        makers.append(lambda: LeakTally(yardstick, attributes, labels_NA))
        makers.append(lambda: DescendantTally(yardstick, learned(roles.descendants, yardstick)))
        if (treatment := first_binary_treatment(question, roles)) is not None:
            references = latent_references(data, question.everyone, treatment, yardstick, device)
            makers.append(lambda: MinimalityTally(references))
    if (extractor := instruments.extractor) is not None:
        real = real_features(data, extractor, device)
        if real is not None:
            makers.append(lambda: RealismTally(real, instruments.yardstick))
    return lambda: [make() for make in makers]


def first_binary_treatment(question: Question, roles: AttributeRoles) -> int | None:
    """Index of the first binary treatment that the question changes; None if there is none."""
    changed = (a.kind == "binary" and a.name in question.do for a in roles.treatments)
    return next((place for place, is_changed in enumerate(changed) if is_changed), None)
