"""Test a yardstick on images with known labels: photographs, blurred ones, and a model's reconstructions."""

import logging
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from civae_core.attributes import require_name, require_same_kinds
from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labels_of, rows_with_labels
from civae_core.data.splits import Split
from civae_core.errors import UsageError
from civae_core.model.stored import StoredModel
from civae_core.yardstick.degrade import blurred
from civae_core.yardstick.instrument import Quality, Yardstick
from civae_core.yardstick.quality import score_quality

log = logging.getLogger(__name__)

BATCH = 64
MOST_TESTED = 2_000


def split_rows(data: PreparedData) -> tuple[Tensor, Tensor]:
    """Rows to train on, and held-out rows to test the scorer on; never from the test split, which it will judge.

    Without a valid split, a tenth of the training images is held out instead.
    """
    train_N, valid_N = data.rows("train"), data.rows("valid")
    if not len(train_N):
        train_N, valid_N = valid_N, train_N
    if not len(valid_N) and len(train_N) > 1:
        log.warning("%s: no valid split; the scorer is tested on a tenth of the images, set aside", data.path)
        aside_N = torch.zeros(len(train_N), dtype=torch.bool)
        aside_N[::10] = True
        train_N, valid_N = train_N[~aside_N], train_N[aside_N]
    return train_N, valid_N[evenly_spread(len(valid_N), MOST_TESTED)]


def quality_on_photos(
    yardstick: Yardstick, data: PreparedData, rows_N: Tensor, *, blur: float = 0.0
) -> Quality:
    """The scorer's quality on photographs, blurred by σ = `blur` times the image's side, or sharp if that is 0."""

    def batches() -> Iterator[Tensor]:
        for rows_B in rows_N.split(BATCH):
            y_BCHW = data.images(rows_B).to(yardstick.device).float() / 255
            yield blurred(y_BCHW, blur * data.size) if blur else y_BCHW

    return quality_on(yardstick, data, rows_N, batches())


def quality_on_reconstructions(yardstick: Yardstick, stored: StoredModel, data: PreparedData) -> Quality:
    """The scorer's quality on a model's reconstructions f(z,t) of held-out images, at the posterior mean and τ = 0.

    Images that lack an attribute which the model needs are left out; the result is empty if none remains.

    Raises:
        UsageError, DataError: as in `require_same_format`.
    """
    require_same_format(stored, data)
    split: Split = "valid" if len(data.rows("valid")) else "train"
    known = rows_with_labels(data, stored.card.roles, split)
    lacking_N = torch.cat([known.t_NT, known.x_NX], dim=1).isnan().any(dim=1)
    chosen = known[~lacking_N & torch.isin(known.rows_N, split_rows(data)[1])]
    if not len(chosen):
        return {}

    def batches() -> Iterator[Tensor]:
        for items_B in torch.arange(len(chosen)).split(BATCH):
            seen = abduct(stored.model, *chosen[items_B].read(data, yardstick.device))
            yield seen.reconstruction.mean_BCHW

    return quality_on(yardstick, data, chosen.rows_N, batches())


def require_same_format(stored: StoredModel, data: PreparedData) -> None:
    """Refuse a model that does not fit the data.

    Raises:
        UsageError: the model takes images of another format, or attributes that the data lacks.
        DataError: one of these attributes is of another kind in the data.
    """
    wants = stored.card.preprocessing
    if (wants["size"], wants["channels"]) != (data.size, data.channels):
        raise UsageError(
            f"{stored.path}: takes images of {wants['channels']}×{wants['size']}×{wants['size']}, "
            f"but those of {data.path} are {data.channels}×{data.size}×{data.size}",
            hint="name a run that was trained on images of that format, or the data that it was trained on",
        )
    known = [attribute.name for attribute in data.attributes]
    for attribute in stored.card.roles.inputs:
        require_name(attribute.name, known, str(data.path))
    require_same_kinds(stored.card.roles.inputs, data.attributes, str(data.path))


def quality_on(
    yardstick: Yardstick, data: PreparedData, rows_N: Tensor, batches: Iterable[Tensor]
) -> Quality:
    """The scorer's quality on batches of images in [0,1] that show the subjects of `rows_N`, in that order.

    Images are grouped by the first treatment that the yardstick was balanced for, if it is binary. Attributes without
    labels in the data are absent from the result.
    """
    outputs = [yardstick.read(y_BCHW).outputs_BA.cpu() for y_BCHW in batches]
    if not outputs:
        return {}
    labels_NA = labels_of(yardstick.attributes, data)[rows_N]
    return score_quality(torch.cat(outputs), labels_NA, yardstick.attributes, _arms(yardstick, data, rows_N))


def _arms(yardstick: Yardstick, data: PreparedData, rows_N: Tensor) -> Tensor | None:
    first = next(iter(yardstick.card.roles["treatments"]), None)
    kinds = {attribute.name: attribute.kind for attribute in data.attributes}
    return data.column(first)[rows_N] if first is not None and kinds.get(first) == "binary" else None
