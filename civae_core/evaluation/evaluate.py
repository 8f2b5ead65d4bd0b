"""Evaluate methods on prepared data, with independent networks and, where it is known, against the truth."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from civae_core.attributes import AttributeRoles, require_same_kinds
from civae_core.balance.diagnostics import overlap_report
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.splits import Split
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.asked import Method
from civae_core.evaluation.calibration import predictor_quality
from civae_core.evaluation.illustrate import illustrate
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.methods import CopyInput, TrainedModel, TrueCounterfactual
from civae_core.evaluation.model_scores import model_scores, reconstruction_quality
from civae_core.evaluation.naming import name_methods
from civae_core.evaluation.question import Question, ask_split
from civae_core.evaluation.scores import counterfactual_scores
from civae_core.evaluation.seeds import summarise
from civae_core.evaluation.sheets import answer_sheets
from civae_core.evaluation.subgroups import groups_of, subgroup_scores
from civae_core.evaluation.tallies import tally_maker
from civae_core.figures.pictures import Picture
from civae_core.model.stored import StoredModel

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Evaluation:
    """The numbers of `evaluate --json`, and the pictures that go with them."""

    numbers: dict[str, Any]
    pictures: list[Picture]


def evaluate(
    models: Sequence[StoredModel],
    data: PreparedData,
    *,
    split: Split = "test",
    limit: int | None = None,
    seed: int = 0,
    instruments: Instruments = Instruments(),
    pictures: bool = True,
) -> Evaluation:
    """Score models, and copying the input, on held-out images.

    Where the data knows the truth under interventions on the models' treatments, counterfactuals are compared with
    it, on the images that have it: `methods` has the scores of the first such intervention, `other_interventions`
    those of the others. Treatments that none of these sets are then changed in turn, each alone, and the instruments
    alone judge the result (`values_to_ask`). `n` counts the images that are asked about: those whose treatment the
    intervention changes.

    Args:
        models: the first is the one in question, and the others are compared with it; runs that differ only in their
            seed are summarised as one method.
        split: the images to score.
        limit: ask about at most this many images, spread evenly over the split.
        seed: seeds the bootstrap and all random draws.
        instruments: independent networks that judge the images; scores that need a missing one are absent.
        pictures: whether to draw the pictures, too.

    Raises:
        UsageError: a model was trained for another question than the first, or for another image format.
        DataError: the split has no labelled images, or none that an intervention changes, or the table lacks one of
            the model's attributes or has it as another kind.
    """
    roles = models[0].card.roles
    methods = require_comparable(models, data)
    return evaluate_questions(
        ask_split(data, roles, split, limit),
        methods,
        data,
        roles,
        split=split,
        seed=seed,
        instruments=instruments,
        pictures=pictures,
    )


def evaluate_questions(
    questions: Sequence[Question],
    methods: Sequence[Method],
    data: PreparedData,
    roles: AttributeRoles,
    *,
    split: str,
    seed: int,
    instruments: Instruments,
    pictures: bool = True,
) -> Evaluation:
    """Score the answers of any methods; the trained models among them also get the scores of `model_scores`.

    Args:
        questions: from `ask_split`, or from `foreign_questions` for other programs' pictures.
        methods: `require_comparable` names trained models, and `answering` other programs.
        split: what the evaluation says was scored: a split's name, or `listed` for what a table listed.
    """
    models = [method for method in methods if isinstance(method, TrainedModel)]
    device = _device_of(models, instruments)
    question, *others = questions
    entries, *of_others = (
        _score_question(q, methods, data, roles, device=device, seed=seed, instruments=instruments)
        for q in questions
    )
    for model in models:
        entries[model.name] |= model_scores(model, data, question, device, seed, instruments)
    groups = {model.name: model.group for model in models}
    further = [
        {"do": other.do, "n": len(other.chosen), "methods": _by_group(found, groups)}
        for other, found in zip(others, of_others, strict=True)
    ]
    yardstick = instruments.yardstick
    numbers: dict[str, Any] = {
        "schema": SCHEMA,
        "data": data.name,
        "fingerprint": data.fingerprint,
        "split": split,
        "n": len(question.chosen),
        **({"noise": 1.0} if models else {}),  # other programs' pictures have no τ
        "seed": seed,
        "treatment": [a.name for a in roles.treatments],
        "covariates": [a.name for a in roles.covariates],
        "descendants": [a.name for a in roles.descendants],
        "do": question.do,
        "images_seen": {model.name: model.stored.card.images_seen for model in models},
        "methods": _by_group(entries, groups),
        **({"other_interventions": further} if further else {}),
        "overlap": overlap_by_treatment(data, roles),
        **({"scorer": reconstruction_quality(yardstick, models, data)} if yardstick else {}),
        **predictor_scores(models, data, question, device),
    }
    if not pictures:
        return Evaluation(numbers, [])
    pictured = _first_of_each_group(methods, groups)
    drawn = [picture for q in questions for picture in answer_sheets(pictured, data, q, device)]
    if of_models := [method for method in pictured if isinstance(method, TrainedModel)]:
        drawn += illustrate(of_models, data, question, numbers["overlap"], device, seed)
    return Evaluation(numbers, drawn)


def predictor_scores(
    models: Sequence[TrainedModel], data: PreparedData, question: Question, device: torch.device
) -> dict[str, Any]:
    """The entry `predictor`: by model and attribute, how well the model predicts attributes that were not stated."""
    found = {m.name: predictor_quality(m.stored, data, question.everyone, device) for m in models}
    found = {name: quality for name, quality in found.items() if quality}
    return {"predictor": found} if found else {}


def overlap_by_treatment(data: PreparedData, roles: AttributeRoles) -> dict[str, Any]:
    """Overlap diagnostics of each treatment on the training split (METHOD 6).

    For each treatment, the others count as covariates, because do(treatment) leaves them as they are. Empty if no
    image of the split has all its labels.
    """
    try:
        train = labelled_rows(data, roles, "train")
    except DataError:
        return {}
    reports = {}
    for i, treatment in enumerate(roles.treatments):
        others = [j for j in range(len(roles.treatments)) if j != i]
        given = [*roles.covariates, *(roles.treatments[j] for j in others)]
        reports[treatment.name] = overlap_report(
            torch.cat([train.x_NX, train.t_NT[:, others]], dim=1),
            train.t_NT[:, i],
            [a.name for a in given],
            treatment.name,
            treatment.kind,
            [a.kind == "binary" for a in given],
        ).to_dict()
    return reports


def _score_question(
    question: Question,
    methods: Sequence[Method],
    data: PreparedData,
    roles: AttributeRoles,
    *,
    device: torch.device,
    seed: int,
    instruments: Instruments,
) -> dict[str, dict[str, Any]]:
    """Entries by method: the copy first and, where it is known and a yardstick can judge it, the truth last."""
    judged = question.truth is not None and instruments.yardstick is not None
    asked: list[Method] = [CopyInput(), *methods, *([TrueCounterfactual()] if judged else [])]
    found = counterfactual_scores(
        asked,
        data,
        question,
        tally_maker(question, data, roles, instruments, device),
        yardstick=instruments.yardstick,
        device=device,
        seed=seed,
    )
    groups = groups_of(question.chosen.x_NX, question.chosen.t_NT, question.t_new_NT, roles)
    return {
        name: scored.entries | subgroup_scores(scored.per_image, groups, seed)
        for name, scored in found.items()
    }


def _by_group(entries: dict[str, dict[str, Any]], groups: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The non-empty entries by group, with the runs of one group summarised as one entry."""
    gathered: dict[str, list[dict[str, Any]]] = {}
    for name, entry in entries.items():
        gathered.setdefault(groups.get(name, name), []).append(entry)
    return {
        name: summarise(found) if len(found) > 1 else found[0]
        for name, found in gathered.items()
        if any(found)
    }


def _first_of_each_group(methods: Sequence[Method], groups: dict[str, str]) -> list[Method]:
    first: dict[str, Method] = {}
    for method in methods:
        first.setdefault(groups.get(method.name, method.name), method)
    return list(first.values())


def _device_of(models: Sequence[TrainedModel], instruments: Instruments) -> torch.device:
    if models:
        return next(models[0].stored.model.parameters()).device
    return torch.device("cpu") if instruments.yardstick is None else instruments.yardstick.device


def require_comparable(models: Sequence[StoredModel], data: PreparedData) -> list[TrainedModel]:
    """Name the models, after checking that they can be compared on this data.

    Raises:
        UsageError: a model was trained for another question than the first, or the images have another format.
        DataError: the table lacks one of the model's attributes, or has it as another kind than a model's training.
    """
    methods = name_methods(models)
    stored = models[0]
    wants = stored.card.preprocessing
    if (data.size, data.channels) != (wants["size"], wants["channels"]):
        raise UsageError(
            f"--data {data.path}: images are {data.channels}×{data.size}×{data.size}, "
            f"the model takes {wants['channels']}×{wants['size']}×{wants['size']}",
            hint=f"name data prepared with `--size {wants['size']}{' --grey' if wants['channels'] == 1 else ''}`",
        )
    columns = {a.name for a in data.attributes}
    missing = [a.name for a in stored.card.roles.inputs if a.name not in columns]
    if missing:
        raise DataError(
            f"--data {data.path}: has no column {missing[0]}, which the model was trained with",
            hint=f"`civae info {data.path}` lists its columns; name data that has the model's",
        )
    for each in models:
        require_same_kinds(each.card.roles.inputs, data.attributes, f"--data {data.path}")
    return methods


def default_data(stored: StoredModel) -> PreparedData:
    """The prepared data that a model was trained on.

    Raises:
        DataError: the data is no longer where training found it. If it has changed since, there is only a warning.
    """
    identity = stored.card.data
    try:
        data = PreparedData.open(Path(identity["path"]))
    except DataError as error:
        raise DataError(
            f"{error.message} (the data that {stored.path} was trained on)",
            hint="name prepared data with --data",
        ) from error
    if data.fingerprint != identity["fingerprint"]:
        log.warning("%s has changed since the model was trained on it", data.path)
    return data
