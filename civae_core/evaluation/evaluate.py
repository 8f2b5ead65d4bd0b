"""The evaluation of trained models on prepared data: against the truth where it is known (METHOD 6)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.balance.diagnostics import overlap_report
from civae_core.data import PreparedData, Truth
from civae_core.data.splits import Split
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.methods import CopyInput, Method, TrainedModel, name_methods
from civae_core.evaluation.metrics import bits_per_dim, psnr, ssim
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.figures.grids import image_grid
from civae_core.inference.edit import apply_intervention
from civae_core.model.stored import StoredModel
from civae_core.progress import progress
from civae_core.randomness import generator_for
from civae_core.training.setup import LabelledRows, labelled_rows

log = logging.getLogger(__name__)

SCHEMA = 1
BATCH = 64
GRID_ROWS = 8


@dataclass(frozen=True)
class Evaluation:
    """The numbers as in `evaluate --json`, the pictures with captions, and the overlap by treatment."""

    numbers: dict[str, Any]
    pictures: list[tuple[str, Image.Image]]
    overlap: dict[str, Any]


@dataclass(frozen=True)
class _Question:
    """One intervention on the rows of a split, with the true answers where they are known."""

    chosen: LabelledRows
    t_new_NT: Tensor
    do: dict[str, float | str]
    truth: Truth | None
    places_N: Tensor | None
    """Where each chosen row stands in `truth`."""


def evaluate(
    models: Sequence[StoredModel],
    data: PreparedData,
    *,
    split: Split = "test",
    limit: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Scores models, and copying the input, on held-out images.

    Where the data knows the truth under an intervention on the models' treatments, counterfactuals are held
    against the first such truth, on the images that have it; elsewhere only reconstructions are scored.

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
    question = _ask(data, roles, _spread(labelled_rows(data, roles, split), limit))
    device = next(models[0].model.parameters()).device

    entries = _reconstruction_entries(methods, data, question.chosen, device, seed)
    if question.truth is not None:
        entries = _counterfactual_entries([CopyInput(), *methods], data, question, device, seed, entries)
    return Evaluation(
        numbers={
            "schema": SCHEMA,
            "data": data.name,
            "fingerprint": data.fingerprint,
            "split": split,
            "n": len(question.chosen.rows_N),
            "noise": 1.0,
            "seed": seed,
            "treatment": [a.name for a in roles.treatments],
            "covariates": [a.name for a in roles.covariates],
            "descendants": [a.name for a in roles.descendants],
            "do": question.do,
            "images_seen": {method.name: method.stored.card.images_seen for method in methods},
            "methods": entries,
        },
        pictures=_pictures(methods, data, question, device),
        overlap=overlap_by_treatment(data, roles),
    )


def overlap_by_treatment(data: PreparedData, roles: AttributeRoles) -> dict[str, Any]:
    """The overlap diagnostics of each treatment on the training split (METHOD 6)."""
    train = labelled_rows(data, roles, "train")
    names = [a.name for a in roles.covariates]
    is_binary = [a.kind == "binary" for a in roles.covariates]
    return {
        a.name: overlap_report(train.x_NX, train.t_NT[:, i], names, a.name, a.kind, is_binary).to_dict()
        for i, a in enumerate(roles.treatments)
    }


def _reconstruction_entries(
    methods: Sequence[TrainedModel], data: PreparedData, chosen: LabelledRows, device: torch.device, seed: int
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, list[Tensor]]] = {method.name: {} for method in methods}
    with progress("evaluate reconstructions", len(chosen.rows_N)) as bar:
        for start, (y_BCHW, x_BX, t_BT) in _batches(data, chosen, device):
            for method in methods:
                model = method.stored.model
                noise_BZ = torch.randn(
                    len(y_BCHW), model.latent, generator=generator_for(seed, "evaluate", start)
                ).to(device)
                mean_BCHW = method.answer(y_BCHW, x_BX, t_BT, t_BT).reconstruction_BCHW.clamp(0, 1)
                nats_B = method.negative_elbo(y_BCHW, x_BX, t_BT, noise_BZ)
                values = {
                    "psnr_reconstruction": psnr(mean_BCHW, y_BCHW),
                    "ssim_reconstruction": ssim(mean_BCHW, y_BCHW),
                    "bits_per_dim": bits_per_dim(nats_B, y_BCHW[0].numel()),
                }
                for name, values_B in values.items():
                    found[method.name].setdefault(name, []).append(values_B.cpu())
            bar.advance(len(y_BCHW))
    return {
        name: {key: bootstrap_mean(torch.cat(parts), seed=seed).to_dict() for key, parts in values.items()}
        for name, values in found.items()
    }


def _counterfactual_entries(
    methods: Sequence[Method],
    data: PreparedData,
    question: _Question,
    device: torch.device,
    seed: int,
    entries: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    assert question.truth is not None and question.places_N is not None
    at_one = {method.name: CounterfactualTally() for method in methods}
    at_zero = {method.name: CounterfactualTally() for method in methods}
    with progress("evaluate counterfactuals", len(question.chosen.rows_N)) as bar:
        for start, (y_BCHW, x_BX, t_BT) in _batches(data, question.chosen, device):
            rows = slice(start, start + len(y_BCHW))
            truth_BCHW = question.truth.images(question.places_N[rows]).to(device).float() / 255
            t_new_BT = question.t_new_NT[rows].to(device)
            for method in methods:
                answer = method.answer(y_BCHW, x_BX, t_BT, t_new_BT)
                at_one[method.name].add(y_BCHW, answer.with_noise_BCHW, truth_BCHW)
                at_zero[method.name].add(y_BCHW, answer.mean_BCHW, truth_BCHW)
            bar.advance(len(y_BCHW))
    result: dict[str, dict[str, Any]] = {}
    for method in methods:
        own = at_one[method.name].summary(seed)
        mean_image = at_zero[method.name].summary(seed)
        if "relative_effect_error" in mean_image:
            own["relative_effect_error_mean_image"] = mean_image["relative_effect_error"]
        result[method.name] = own | entries.get(method.name, {})
    return result


def _pictures(
    methods: Sequence[TrainedModel], data: PreparedData, question: _Question, device: torch.device
) -> list[tuple[str, Image.Image]]:
    rows = torch.linspace(
        0, len(question.chosen.rows_N) - 1, min(GRID_ROWS, len(question.chosen.rows_N))
    ).long()
    few = LabelledRows(question.chosen.rows_N[rows], question.chosen.x_NX[rows], question.chosen.t_NT[rows])
    _, (y_BCHW, x_BX, t_BT) = next(_batches(data, few, device))
    t_new_BT = question.t_new_NT[rows].to(device)
    answers = {method.name: method.answer(y_BCHW, x_BX, t_BT, t_new_BT) for method in methods}
    first = answers[methods[0].name]
    before = [("original", y_BCHW), ("reconstruction", first.reconstruction_BCHW)]
    after = []
    if question.truth is not None and question.places_N is not None:
        after.append(("truth", question.truth.images(question.places_N[rows]).float() / 255))
    labels = _row_labels(question, rows)
    described = ", ".join(f"{name}={value}" for name, value in question.do.items())
    sheet = image_grid([*before, ("counterfactual", first.with_noise_BCHW), *after], labels)
    pictures = [
        (f"Held-out images under do({described}), with their own fine detail re-applied (τ = 1).", sheet)
    ]
    if len(methods) > 1:
        others = [(name, answer.with_noise_BCHW) for name, answer in answers.items()]
        pictures.append(
            ("The same counterfactuals by each method.", image_grid([before[0], *others, *after], labels))
        )
    return pictures


def _row_labels(question: _Question, rows: Tensor) -> list[str] | None:
    if len(question.do) != 1:
        return None
    (name,) = question.do
    old, new = question.chosen.t_NT[rows], question.t_new_NT[rows]
    index = int((old != new).any(dim=0).int().argmax())
    return [
        f"{name} {a:g} → {b:g}" for a, b in zip(old[:, index].tolist(), new[:, index].tolist(), strict=True)
    ]


def _ask(data: PreparedData, roles: AttributeRoles, chosen: LabelledRows) -> _Question:
    """The intervention whose truth the data knows; else flipping the first treatment (or its two ends)."""
    names = {a.name for a in roles.treatments}
    for truth in data.truth:
        if set(truth.do) <= names:
            place = {row: index for index, row in enumerate(truth.rows.tolist())}
            kept = torch.tensor([row in place for row in chosen.rows_N.tolist()], dtype=torch.bool)
            if not kept.any():
                continue
            known = LabelledRows(chosen.rows_N[kept], chosen.x_NX[kept], chosen.t_NT[kept])
            places_N = torch.tensor([place[row] for row in known.rows_N.tolist()])
            columns = [[a.name for a in data.attributes].index(a.name) for a in roles.treatments]
            return _Question(known, truth.table_MA[places_N][:, columns], truth.do, truth, places_N)
    first = roles.treatments[0]
    do: dict[str, float | str] = {first.name: "flip" if first.kind == "binary" else first.high}
    t_new_NT = apply_intervention(chosen.t_NT, do, roles)  # type: ignore[arg-type]
    return _Question(chosen, t_new_NT, do, None, None)


def _batches(
    data: PreparedData, chosen: LabelledRows, device: torch.device
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    for start in range(0, len(chosen.rows_N), BATCH):
        rows = slice(start, start + BATCH)
        y_BCHW = data.images(chosen.rows_N[rows]).to(device).float() / 255
        yield start, (y_BCHW, chosen.x_NX[rows].to(device), chosen.t_NT[rows].to(device))


def _spread(chosen: LabelledRows, limit: int | None) -> LabelledRows:
    count = len(chosen.rows_N)
    if limit is None or limit >= count:
        return chosen
    rows = torch.linspace(0, count - 1, limit).round().long()
    return LabelledRows(chosen.rows_N[rows], chosen.x_NX[rows], chosen.t_NT[rows])


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
        DataError: it is no longer where training found it, or it is other data now.
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
