"""The evaluation of trained models on prepared data: against the truth where it is known (METHOD 6)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.balance.diagnostics import overlap_report
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.data.splits import Split
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.columns import do_text
from civae_core.evaluation.methods import CopyInput, TrainedModel, name_methods
from civae_core.evaluation.question import Question, ask
from civae_core.evaluation.scores import counterfactual_scores, reconstruction_scores
from civae_core.figures.effects import effect_grid
from civae_core.figures.grids import image_grid
from civae_core.model.stored import StoredModel

log = logging.getLogger(__name__)

SCHEMA = 1
GRID_ROWS = 8


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
    if question.truth is not None:
        against_truth = counterfactual_scores([CopyInput(), *methods], data, question, device, seed)
        entries = {name: scores | entries.get(name, {}) for name, scores in against_truth.items()}
    further = [
        {
            "do": other.do,
            "n": len(other.chosen),
            "methods": counterfactual_scores([CopyInput(), *methods], data, other, device, seed),
        }
        for other in others
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
            "methods": entries,
            **({"other_interventions": further} if further else {}),
        },
        pictures=[picture for q in (question, *others) for picture in _pictures(methods, data, q, device)],
        overlap=overlap_by_treatment(data, roles),
    )


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


def _pictures(
    methods: Sequence[TrainedModel], data: PreparedData, question: Question, device: torch.device
) -> list[tuple[str, Image.Image]]:
    rows = evenly_spread(len(question.chosen), GRID_ROWS)
    y_BCHW, x_BX, t_BT = question.chosen[rows].read(data, device)
    t_new_BT = question.t_new_NT[rows].to(device)
    answers = {method.name: method.answer(y_BCHW, x_BX, t_BT, t_new_BT) for method in methods}
    first = answers[methods[0].name]
    before = [("original", y_BCHW), ("reconstruction", first.reconstruction_BCHW)]
    after = []
    if question.truth is not None:
        after.append(("truth", question.truth.images(rows)))
    labels = _row_labels(question, rows)
    sheet = image_grid([*before, ("counterfactual", first.with_noise_BCHW), *after], labels)
    pictures = [
        (
            f"Held-out images under do({do_text(question.do)}), with their own fine detail re-applied (τ = 1).",
            sheet,
        )
    ]
    if len(methods) > 1:
        others = [(name, answer.with_noise_BCHW) for name, answer in answers.items()]
        pictures.append(
            (f"do({do_text(question.do)}) by each method.", image_grid([before[0], *others, *after], labels))
        )
    changes = [(name, answer.with_noise_BCHW - y_BCHW) for name, answer in answers.items()]
    changes += [(name, images_BCHW.to(device) - y_BCHW) for name, images_BCHW in after]
    pictures.append(
        (f"do({do_text(question.do)}): where, and how, the input is changed.", effect_grid(changes, labels))
    )
    return pictures


def _row_labels(question: Question, rows: Tensor) -> list[str] | None:
    if len(question.do) != 1:
        return None
    (name,) = question.do
    old, new = question.chosen.t_NT[rows], question.t_new_NT[rows]
    index = int((old != new).any(dim=0).int().argmax())
    return [
        f"{name} {a:g} → {b:g}" for a, b in zip(old[:, index].tolist(), new[:, index].tolist(), strict=True)
    ]


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
