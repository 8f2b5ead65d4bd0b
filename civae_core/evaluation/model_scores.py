"""Scores of a trained model beyond its answers: reconstruction, cycles, its prior and its latent code."""

from collections.abc import Sequence
from typing import Any

import torch

from civae_core.data import PreparedData
from civae_core.evaluation.cycles import cycle_scores
from civae_core.evaluation.doses import dose_scores, known_doses
from civae_core.evaluation.effect_errors import prior_effect_scores
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.latent_balance import latent_balance
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question
from civae_core.evaluation.samples import sample_scores
from civae_core.evaluation.scores import reconstruction_scores
from civae_core.evaluation.tallies import first_binary_treatment
from civae_core.yardstick import Yardstick
from civae_core.yardstick.trial import quality_on_reconstructions


def model_scores(
    method: TrainedModel,
    data: PreparedData,
    question: Question,
    device: torch.device,
    seed: int,
    instruments: Instruments,
) -> dict[str, Any]:
    """The entries of a model on a question's images, beyond its answers.

    These are reconstruction, composition, reversibility, mean effects from the prior, images from the prior, balance
    of z, and the response to doses where the data knows several. Entries that need no counterfactual, or one at every
    dose, are over all images, including those that already have the intended treatment.
    """
    roles, everyone = method.stored.card.roles, question.everyone
    entries = reconstruction_scores(method, data, everyone, device, seed, instruments.lpips)
    entries |= cycle_scores(method, data, question, device, seed, instruments.lpips)
    entries |= prior_effect_scores(method, data, question, device, seed)
    entries |= sample_scores(method, data, everyone, device, seed, instruments.extractor)
    treatment = first_binary_treatment(question, roles)
    if treatment is not None:
        entries |= latent_balance(method, data, everyone, treatment, device, seed)
    doses = {
        known.treatment.name: dose_scores(method, known, data, device, seed, instruments.yardstick)
        for known in known_doses(data, roles, everyone)
    }
    return entries | ({"dose_response": doses} if doses else {})


def reconstruction_quality(
    yardstick: Yardstick, models: Sequence[TrainedModel], data: PreparedData
) -> dict[str, Any]:
    """The entry `scorer`: its name, and how well it reads attributes of photographs and of reconstructions (τ = 0).

    Both come from the valid split, or without one from images set aside, so that the judge is not tested on what it
    judges. Where none of these is labelled, reconstructions are absent.
    """
    tried = {model.name: quality_on_reconstructions(yardstick, model.stored, data) for model in models}
    return {
        "name": yardstick.name,
        "fingerprint": yardstick.fingerprint,
        "trained_on": yardstick.card.data["name"],
        "photos": yardstick.card.photos,
        "reconstructions": {name: quality for name, quality in tried.items() if quality},
    }
