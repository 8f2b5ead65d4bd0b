"""What a path holds: prepared data, a run, a checkpoint, a model file or a scorer file, as plain facts."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.errors import DataError, UsageError
from civae_core.file_names import MANIFEST, PARTIAL
from civae_core.files import exists
from civae_core.measured import lines_of, told_by
from civae_core.os_errors import hint_on_reading
from civae_core.overfitting import overfit_of
from civae_core.reading import strict, utf8_path

if TYPE_CHECKING:
    from civae_core.model.stored import ModelCard


def inspect(path: Path, *, verify: bool = False) -> dict[str, Any]:
    """Facts about a path; `kind` says whether it is data, a run, a checkpoint, a model or a scorer.

    Args:
        verify: read prepared data in full and compare it with its checksums.

    Raises:
        UsageError: there is no such path, or `verify` is set for a path that is not prepared data.
        DataError: the path is none of these, is damaged, or has changed since its checksums were taken.
    """
    return dict(strict(_inspect(path, verify)))


def _inspect(path: Path, verify: bool) -> dict[str, Any]:
    if not exists(path):
        raise UsageError(
            f"{path}: no such file or folder", hint="name prepared data, a run, a model file or a scorer file"
        )
    if path.name == MANIFEST:
        path = path.parent
    if (path / MANIFEST).exists() or (path / PARTIAL).is_dir():
        return _inspect_data(path, verify)
    if verify:
        raise UsageError(
            f"--verify: {path} is not prepared data",
            hint="omit --verify; other files are checked as they are read",
        )
    from civae_core.yardstick.stored import holds_yardstick

    if path.is_file() and holds_yardstick(path):
        return _inspect_scorer(path)
    return _inspect_model(path)


def _inspect_data(path: Path, verify: bool) -> dict[str, Any]:
    from civae_core.data import PreparedData

    data = PreparedData.open(path)
    if verify:
        data.verify()
    return {
        "kind": "data",
        "path": str(path),
        "name": data.name,
        "images": len(data),
        "splits": {split: int(count) for split, count in data.manifest.splits.items()},
        "rejected": data.manifest.rejected,
        "preprocessing": data.preprocessing,
        "attributes": [attribute.to_dict() for attribute in data.attributes],
        "truth": [{"name": truth.name, "do": truth.do, "images": len(truth)} for truth in data.truth],
        "bytes": sum(entry.bytes for entry in data.manifest.files.values()),
        "fingerprint": data.fingerprint,
    }


def _inspect_model(path: Path) -> dict[str, Any]:
    from civae_core.model.stored import read_card
    from civae_core.model_paths import find_model_file, follow

    file = find_model_file(path)
    card = read_card(file)
    facts: dict[str, Any] = {"kind": "model" if path.is_file() else "checkpoint", "path": str(path)}
    checkpoints = path / "checkpoints"
    if checkpoints.is_dir():
        facts |= {"kind": "run", "checkpoints": sorted(p.name for p in checkpoints.glob("step-*"))}
        best = checkpoints / "best"
        if best.exists():
            facts["best"] = follow(best).resolve().name
        facts["last_metrics"] = _last_metrics(path / "metrics.jsonl")
        if overfit := overfit_of(path):
            facts["overfit"] = asdict(overfit)
    evaluation, why_not = _evaluation(file, card)
    return facts | {
        "file": str(file),
        "images_seen": card.images_seen,
        "images_planned": card.config.train.images,
        **({"photographs": card.photographs} if card.photographs else {}),
        "weights": count_weights(file),
        "objective": card.config.objective,
        "roles": _names(card.roles),
        "attributes": [attribute.to_dict() for attribute in card.roles.inputs],
        "preprocessing": card.preprocessing,
        "data": card.data,
        **({"familiarity": card.familiarity.to_dict()} if card.familiarity else {}),
        "config": card.config.model_dump(mode="json"),
        "evaluation": evaluation,
        "not_evaluated": why_not,
    }


def _evaluation(file: Path, card: "ModelCard") -> tuple[dict[str, Any] | None, str]:
    """The evaluation of exactly this model; if there is none, None and the reason."""
    from civae_core.evaluation.naming import OBJECTIVE_NAMES
    from civae_core.export.card_facts import part_of
    from civae_core.export.hub import find_evaluation

    try:
        found, why_not = find_evaluation(file, card)
    except DataError as error:
        return None, error.message
    if found is None:
        return None, why_not
    objective = card.config.objective
    kept = {key: found[key] for key in ("data", "split", "n", "noise", "do", "overlap") if key in found}
    own = OBJECTIVE_NAMES[objective]
    parts = {part: {own: part_of(found, part, objective)} for part in ("methods", "predictor")}
    return kept | parts, ""


def _inspect_scorer(path: Path) -> dict[str, Any]:
    from civae_core.yardstick import load_yardstick

    yardstick = load_yardstick(path)
    card = yardstick.card
    return {
        "kind": "scorer",
        "path": str(path),
        "name": yardstick.name,
        "fingerprint": yardstick.fingerprint,
        "attributes": [attribute.to_dict() for attribute in card.attributes],
        "roles": card.roles,
        "preprocessing": {"size": card.size, "channels": card.channels},
        "weights": count_weights(path),
        "images": card.images,
        "seed": card.seed,
        "data": card.data,
        "photos": card.photos,
        "blurred": card.blurred,
        "reconstructions": card.reconstructions,
    }


def count_weights(file: Path) -> int:
    """How many numbers a safetensors file stores, from its header alone.

    Raises:
        DataError: the file cannot be read as safetensors.
    """
    try:
        with utf8_path(file) as readable, safe_open(readable, framework="numpy") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{file}: not a readable safetensors file ({error})",
            hint=hint_on_reading(error, "copy it again, or use another checkpoint"),
        ) from error
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _names(roles: AttributeRoles) -> dict[str, list[str]]:
    def names(group: tuple[Attribute, ...]) -> list[str]:
        return [attribute.name for attribute in group]

    return {
        "treatment": names(roles.treatments),
        "covariates": names(roles.covariates),
        "descendants": names(roles.descendants),
        "held_out": names(roles.held_out),
    }


def _last_metrics(metrics: Path) -> dict[str, Any] | None:
    """The values in the last complete line, after which a killed run may have left half a line."""
    try:
        return next(filter(None, map(told_by, reversed(lines_of(metrics)))), None)
    except OSError:
        return None  # continuing the run reports what is wrong with it
