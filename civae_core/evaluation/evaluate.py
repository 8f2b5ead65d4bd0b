"""The evaluation of trained models on prepared data: against the truth where it is known (METHOD 6)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from civae_core.attributes import AttributeRoles
from civae_core.balance.diagnostics import overlap_report
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.data.splits import Split
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.asked import Method, Tally
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.methods import CopyInput, TrainedModel, TrueCounterfactual
from civae_core.evaluation.naming import name_methods
from civae_core.evaluation.question import Question, ask
from civae_core.evaluation.scores import counterfactual_scores, reconstruction_scores
from civae_core.evaluation.sheets import answer_sheets
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.model.stored import StoredModel

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Evaluation:
    """The numbers as in `evaluate --json`, the pictures with captions, and the overlap by treatment."""

    numbers: dict[str, Any]
    pictures: list[tuple[str, Image.Image]]
    overlap: dict[str, Any]


def evaluate(
    models: Sequence[StoredModel],
    data: PreparedData,
    *,
    split: Split = "test",
    limit: int | None = None,
    seed: int = 0,
    instruments: Instruments = Instruments(),
) -> Evaluation:
    """Scores models, and copying the input, on held-out images.

    Where the data knows the truth under interventions on the models' treatments, counterfactuals are held against
    it, on the images that have it: `methods` has the scores of the first such intervention, `other_interventions`
    those of the others. Elsewhere only reconstructions are scored.

    Args:
        models: the first is the one in question, the others are held against it.
        split: the images to score.
        limit: score at most this many images, spread over the split.
        seed: of bootstrap and posterior draws.
        instruments: independent networks that judge the images; what needs one that is missing is not scored.

    Raises:
        UsageError: a model was trained for another question than the first, or the images have another format.
        DataError: the split has no labelled images, or the table lacks one of the model's attributes.
    """
    roles = models[0].card.roles
    _require_same_format(models[0], data)
    methods = name_methods(models)
    chosen = labelled_rows(data, roles, split)
    question, *others = ask(data, roles, chosen[evenly_spread(len(chosen), limit or len(chosen))])
    device = next(models[0].model.parameters()).device

    entries = reconstruction_scores(methods, data, question.chosen, device, seed)
    found = [
        counterfactual_scores(
            methods_asked(methods, asked, instruments),
            data,
            asked,
            partial(tallies_for, asked),
            yardstick=instruments.yardstick,
            device=device,
            seed=seed,
        )
        for asked in (question, *others)
    ]
    entries = {name: scored.entries | entries.get(name, {}) for name, scored in found[0].items()}
    further = [
        {
            "do": other.do,
            "n": len(other.chosen),
            "methods": {name: scored.entries for name, scored in scores.items()},
        }
        for other, scores in zip(others, found[1:], strict=True)
    ]
    return Evaluation(
        numbers={
            "schema": SCHEMA,
            "data": data.name,
            "fingerprint": data.fingerprint,
            "split": split,
            "n": len(question.chosen),
            "noise": 1.0,
            "seed": seed,
            "treatment": [a.name for a in roles.treatments],
            "covariates": [a.name for a in roles.covariates],
            "descendants": [a.name for a in roles.descendants],
            "do": question.do,
            "images_seen": {method.name: method.stored.card.images_seen for method in methods},
            "methods": {name: entry for name, entry in entries.items() if entry},
            **({"other_interventions": further} if further else {}),
        },
        pictures=[
            picture for q in (question, *others) for picture in answer_sheets(methods, data, q, device)
        ],
        overlap=overlap_by_treatment(data, roles),
    )


def methods_asked(
    methods: Sequence[TrainedModel], question: Question, instruments: Instruments
) -> list[Method]:
    """The methods of one table: copying the input, the models and, where a yardstick can judge it, the truth."""
    judged = question.truth is not None and instruments.yardstick is not None
    return [CopyInput(), *methods, *([TrueCounterfactual()] if judged else [])]


def tallies_for(question: Question) -> list[Tally]:
    """What is measured of one method's answers to a question."""
    tallies: list[Tally] = []
    if question.truth is not None:
        tallies.append(CounterfactualTally())
    return tallies


def overlap_by_treatment(data: PreparedData, roles: AttributeRoles) -> dict[str, Any]:
    """The overlap diagnostics of each treatment on the training split (METHOD 6); none where it has no images."""
    if not len(data.rows("train")):
        return {}
    train = labelled_rows(data, roles, "train")
    names = [a.name for a in roles.covariates]
    is_binary = [a.kind == "binary" for a in roles.covariates]
    return {
        a.name: overlap_report(train.x_NX, train.t_NT[:, i], names, a.name, a.kind, is_binary).to_dict()
        for i, a in enumerate(roles.treatments)
    }


def _require_same_format(stored: StoredModel, data: PreparedData) -> None:
    wants = stored.card.preprocessing
    if (data.size, data.channels) != (wants["size"], wants["channels"]):
        raise UsageError(
            f"--data {data.path}: images are {data.channels}×{data.size}×{data.size}, "
            f"the model takes {wants['channels']}×{wants['size']}×{wants['size']}"
        )
    columns = {a.name for a in data.attributes}
    missing = [a.name for a in stored.card.roles.inputs if a.name not in columns]
    if missing:
        raise DataError(f"--data {data.path}: has no column {missing[0]}, which the model was trained with")


def default_data(stored: StoredModel) -> PreparedData:
    """The prepared data that a model was trained on.

    Raises:
        DataError: it is no longer where training found it. Data that has changed since is only warned about.
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
