"""`civae export --format hf`: write config.json, model.safetensors and a model card, ready for upload to a hub."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from civae_core.errors import DataError, UsageError
from civae_core.evaluation.naming import OBJECTIVE_NAMES, name_of_seed
from civae_core.evaluation.values import at_path
from civae_core.export.folders import replaced
from civae_core.export.model_card import write_card
from civae_core.file_names import EVALUATION
from civae_core.files import sha256_of, sync, write_json, write_text
from civae_core.model.stored import ModelCard, StoredModel, save_model
from civae_core.model_paths import FILE_NAME
from civae_core.reading import read_json

CONFIG, README = "config.json", "README.md"
MODEL_TYPE = "civae"
"""By this entry of its config, an earlier export is told from other models for a hub."""
CARD_SHA256 = "card_sha256"
"""Entry of the config by which a card that was edited since is told from one as it was exported."""
NAMELESS = "data"
"""Replaces the path of the training data in a published model: the trainer's machine is nobody's business."""

log = logging.getLogger(__name__)


def export_hub(
    stored: StoredModel,
    folder: Path | None = None,
    *,
    evaluation: Mapping[str, Any] | None = None,
    title: str | None = None,
    licence: str = "other",
    data_licence: str | None = None,
) -> Path:
    """Write the folder, completely or not at all, replacing an older one.

    Args:
        stored: the model, on the CPU.
        folder: where to write; by default `model-hf` beside the model file.
        evaluation: the model's evaluation, as found by `evaluation_of`.
        title: the card's heading; by default the name of the model's run or folder.
        licence: licence of the weights, as abbreviated on hubs, such as `mit` or `cc-by-nc-4.0`.
        data_licence: licence of the training images, in words.

    Raises:
        UsageError: `licence` is not a licence identifier, or `folder` holds something else (`replaced`).
        CivaeError: the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", licence):
        raise UsageError(
            f"--licence {licence}: not a licence identifier", hint="for example mit or cc-by-nc-4.0"
        )
    folder = folder or stored.path.with_name(f"{stored.path.stem}-hf")
    card = published(stored.card)
    with replaced(folder, _files_of, "a model of civae for a hub") as temporary:
        save_model(stored.model, card, temporary / FILE_NAME)
        sync(temporary / FILE_NAME)
        facts = {key: value for key, value in json.loads(card.to_json()).items() if key != "subjects"}
        text = write_card(
            card,
            evaluation,
            title=title or _name_of(stored.path),
            licence=licence,
            data_licence=data_licence,
        )
        write_text(temporary / README, text)
        about = {
            "model_type": MODEL_TYPE,
            "library_name": "civae",
            CARD_SHA256: sha256_of(temporary / README),
        }
        write_json(temporary / CONFIG, about | facts)
    return folder


def _files_of(folder: Path) -> tuple[str, ...]:
    """The files of an earlier export, without its card if that was edited since; none if the folder is not one."""
    try:
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
            return ()
        card = folder / README
        edited = CARD_SHA256 in config and card.is_file() and config[CARD_SHA256] != sha256_of(card)
    except (OSError, ValueError):
        return ()
    return (CONFIG, FILE_NAME) if edited else (CONFIG, FILE_NAME, README)


def published(card: ModelCard) -> ModelCard:
    """The card without the paths of the machine that trained the model."""
    data = card.config.data.model_copy(update={"path": NAMELESS})
    config = card.config.model_copy(update={"data": data})
    return replace(card, config=config, data=card.data | {"path": NAMELESS})


def evaluation_of(stored: StoredModel) -> dict[str, Any] | None:
    """The run's evaluation.json if it is of this very model; otherwise None, with the reason logged.

    Raises:
        DataError: the file exists but cannot be read.
    """
    found, reason = find_evaluation(stored.path, stored.card)
    if found is None:
        log.warning("%s", reason)
    return found


def find_evaluation(model_file: Path, card: ModelCard) -> tuple[dict[str, Any] | None, str]:
    """The evaluation of a model file's run if it is of this very model; otherwise None, with the reason.

    If several seeds were evaluated, its numbers are means over their runs; its entry `predictor` then has this
    model's own numbers under the name of its objective.

    Raises:
        DataError: the file exists but cannot be read.
    """
    run = _run_of(model_file)
    path = run / EVALUATION if run else None
    if path is None or not path.is_file():
        return None, f"{model_file}: has no evaluation, so its card has no figures; run civae evaluate first"
    try:
        found = read_json(path)
        evaluated, own = found["images_seen"], OBJECTIVE_NAMES[card.config.objective]
        name = own if own in evaluated else name_of_seed(own, card.config.train.seed)
        seen = evaluated.get(name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not an evaluation ({error})", hint="run civae evaluate again") from error
    if seen is None:
        others = ", ".join(evaluated) or "no model"
        return None, f"{path}: describes {others}, not this model; the card has no figures"
    if seen != card.images_seen:
        reason = (
            f"describes a model that had seen {seen} images, not {card.images_seen}; the card has no figures"
        )
        return None, f"{path}: {reason}"
    result: dict[str, Any] = found
    if name != own:
        result |= {"predictor": {own: at_path(found, ["predictor", name])}}
    return result, ""


def _run_of(model_file: Path) -> Path | None:
    """The run that a checkpoint's model file belongs to; None if it lies in no run."""
    checkpoints = model_file.resolve().parent.parent
    return checkpoints.parent if checkpoints.name == "checkpoints" else None


def _name_of(model_file: Path) -> str:
    return (_run_of(model_file) or model_file.resolve().parent).name
