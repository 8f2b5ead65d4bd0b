"""Checkpoints: folders that are complete or absent, with averaged weights to use and the state to resume from."""

import contextlib
import json
import logging
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.errors import DataError
from civae_core.files import describe_os_error, sync
from civae_core.model.stored import (
    ModelCard,
    load_weights,
    read_card,
    read_metadata,
    read_shapes,
    read_tensors,
    save_model,
    save_tensors,
)
from civae_core.model_paths import FILE_NAME, LINKS, find_model_file, follow
from civae_core.reading import parse_json
from civae_core.training.learner import Learner

log = logging.getLogger(__name__)

ALIKE = 0.1
"""Two scales of an attribute count as one if means differ by at most this share of its standard deviation, and
standard deviations by at most this share."""
STATE_NAME = "state.safetensors"
STATE_FORMAT = 2
"""Format 1 stored no format number and no tally, and counted neither lines of metrics nor setbacks."""
TEMPORARY_PREFIX = ".writing-"
REPLACED_PREFIX = f"{TEMPORARY_PREFIX}replaced-"
"""Prefix of a complete checkpoint while another with the same count takes its place."""
MOST_NUMBERS_PER_WEIGHT = 4
"""Upper limit for a weight itself and its optimiser moments, of which AdamW has two."""
MOST_NUMBERS_BESIDE = 1_000_000
"""Upper limit for step counts and the tally."""


@dataclass
class Counters:
    """The progress of a run, apart from its tensors."""

    images_seen: int = 0
    best_images: int = 0
    best_loss: float | None = None
    metrics_lines: int | None = None
    """Lines that metrics.jsonl had at this point; None for a state of format 1, which does not say."""
    setbacks: int = 0
    """How often training diverged and was set back to an earlier checkpoint."""
    paired: bool = False
    """Whether latent noises have been paired (`training.pairing`), which is the last step of training."""


def save_checkpoint(
    folder: Path, learner: Learner, card: ModelCard, counters: Counters, *, keep: int, is_best: bool
) -> Path:
    """Write `folder`/step-<images>, point `last` (and `best`) at it, and `drop_old`.

    Files are written to a temporary folder, synced and renamed, so a checkpoint that exists is complete.

    Raises:
        CivaeError: the disk is full or the folder is not writable; earlier checkpoints stay as they were.
    """
    name = _name_of(counters.images_seen)
    temporary = folder / f"{TEMPORARY_PREFIX}{name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(learner.average, card, temporary / FILE_NAME)
        save_tensors(temporary / STATE_NAME, _state_tensors(learner), _state_metadata(learner, counters))
        for file in (temporary / FILE_NAME, temporary / STATE_NAME, temporary):
            sync(file)
        if (folder / name).is_dir():
            (folder / name).rename(folder / f"{REPLACED_PREFIX}{name}")
        temporary.rename(folder / name)
        _point(folder / "last", name)
        if is_best:
            _point(folder / "best", name)
        sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            _bring_back(folder)
        raise describe_os_error(error, folder / name) from error
    with contextlib.suppress(OSError):  # a leftover costs disk, not correctness
        _discard(folder / f"{REPLACED_PREFIX}{name}")
    drop_old(folder, keep)
    return folder / name


def restore_checkpoint(folder: Path, learner: Learner) -> Counters:
    """Load a checkpoint folder into a learner of the same configuration.

    Raises:
        DataError: a file is missing, truncated, not a checkpoint's, of another shape, of a newer format, or about
            other attributes.
    """
    state_file, model_file = folder / STATE_NAME, find_model_file(folder)
    if not state_file.is_file():
        raise DataError(
            f"{folder}: has no {STATE_NAME}, so training cannot continue from it",
            hint="a model file alone is enough to use a model, not to resume its training",
        )
    _require_same_inputs(read_card(model_file).roles, learner.roles, model_file)
    metadata, tensors = _read_metadata(state_file), _read_state(state_file, learner)
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    load_weights(learner.model, weights, state_file)
    load_weights(learner.average, read_tensors(model_file), model_file)
    _load_critics(learner, tensors, state_file)
    try:
        _load_optimizer(learner, {k: v for k, v in tensors.items() if k.startswith("optimizer.")})
        if metadata["scaler"] and learner.scaler.is_enabled():
            learner.scaler.load_state_dict(metadata["scaler"])
        if metadata.get("tally") == list(learner.tally.names):
            learner.tally.load(_checked_tally(tensors["tally"], len(learner.tally.values())))
        return Counters(**metadata["counters"])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_state(state_file, error) from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: what `last` points at, or a newer one if a kill kept `last` from moving."""
    steps = [path for path in _by_age(folder) if (path / STATE_NAME).is_file()]
    return steps[-1] if steps else None


def last_good_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint whose last step was not skipped.

    Raises:
        DataError: a state cannot be read.
    """
    for path in reversed(_by_age(folder)):
        file = path / STATE_NAME
        if file.is_file() and not _skipped_in_a_row(file):
            return path
    return None


def discard_after(folder: Path, images: int) -> None:
    """Delete checkpoints that have seen more than `images`, and `last` and `best` if they point at one of those.

    Raises:
        CivaeError: they cannot be deleted.
    """
    kept = _name_of(images)
    for path in _by_age(folder):
        if (len(path.name), path.name) > (len(kept), kept):
            try:
                _discard(path)
            except OSError as error:
                raise describe_os_error(error, path) from error
    for link in LINKS:
        if not follow(folder / link).is_dir():
            (folder / link).unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process left half-written or half-deleted, and restore what it had not replaced yet.

    Raises:
        CivaeError: the folder is not writable.
    """
    try:
        _bring_back(folder)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def mend_links(folder: Path, counters: Counters) -> None:
    """Point `last` and `best` where a process that was killed just before would have pointed them.

    Raises:
        CivaeError: the folder is not writable.
    """
    links = {"last": counters.images_seen}
    if counters.best_loss is not None:
        links["best"] = counters.best_images
    try:
        for link, images in links.items():
            if (folder / _name_of(images)).is_dir():
                _point(folder / link, _name_of(images))
    except OSError as error:
        raise describe_os_error(error, folder) from error


def _require_same_inputs(saved: AttributeRoles, wanted: AttributeRoles, file: Path) -> None:
    """Refuse other attributes, and warn of attributes whose values the weights would see on another scale."""

    def names(roles: AttributeRoles) -> tuple[list[str], list[str]]:
        return [a.name for a in roles.treatments], [a.name for a in roles.covariates]

    if names(saved) != names(wanted):
        raise DataError(
            f"{file}: its treatments and covariates are {_listed(saved)}, but the config's are {_listed(wanted)}",
            hint="continue with the attributes that the checkpoint was trained with",
        )
    for old, new in zip(saved.inputs, wanted.inputs, strict=True):
        if old.kind != new.kind:
            raise DataError(
                f"{file}: was trained with {old.name} as a {old.kind} attribute, but in this data it is {new.kind}",
                hint="prepare the data with values of the same kind, or start from scratch",
            )
        (old_shift, old_scale), (new_shift, new_scale) = old.shift_and_scale, new.shift_and_scale
        if abs(new_shift - old_shift) > ALIKE * old_scale or abs(new_scale / old_scale - 1) > ALIKE:
            log.warning(
                "%s: in its training, %s had mean %.3g and standard deviation %.3g; here they are %.3g and %.3g, "
                "so the weights must learn its scale anew",
                *(file, old.name, old_shift, old_scale, new_shift, new_scale),
            )


def _listed(roles: AttributeRoles) -> str:
    parts = [", ".join(a.name for a in group) for group in (roles.treatments, roles.covariates)]
    return " | ".join(parts)


def _name_of(images: int) -> str:
    return f"step-{images:09d}"


def _by_age(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first; a count of more than nine digits sorts after all shorter ones."""
    found = {path.name: path for path in folder.glob("step-*")}
    for aside in _set_aside(folder):
        found.setdefault(aside.name.removeprefix(REPLACED_PREFIX), aside)
    return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]


def _state_tensors(learner: Learner) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in learner.model.state_dict().items()}
    tensors |= {f"critics.{name}": tensor for name, tensor in learner.critics.state_dict().items()}
    names = _parameter_names(learner)
    for parameter, state in learner.optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{names[parameter]}.{key}"] = value
    tensors["tally"] = learner.tally.values()
    return tensors


def _state_metadata(learner: Learner, counters: Counters) -> dict[str, str]:
    values = {
        "format": STATE_FORMAT,
        "counters": vars(counters),
        "scaler": learner.scaler.state_dict(),
        "tally": learner.tally.names,
    }
    return {"civae_state": json.dumps(values, allow_nan=False)}


def _no_state(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: not a training state of this version ({error})",
        hint=f"copy it again, use the civae that wrote it, or delete {file.parent} to continue from the one before",
    )


def _read_metadata(file: Path) -> dict[str, Any]:
    try:
        metadata = parse_json(read_metadata(file)["civae_state"])
        written = metadata.get("format", 1)
        newer = written > STATE_FORMAT
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_state(file, error) from error
    if newer:
        raise DataError(
            f"{file}: written in format {written}, this version reads up to {STATE_FORMAT}",
            hint="update civae",
        )
    return dict(metadata)


def _read_state(file: Path, learner: Learner) -> dict[str, Tensor]:
    """Read those tensors of a state that belong to this learner, after checking that their size is plausible.

    A state that another run wrote may hold more, such as critics that this run does not have.
    """
    own = {f"model.{name}": tensor for name, tensor in learner.model.state_dict().items()}
    own |= {f"critics.{name}": tensor for name, tensor in learner.critics.state_dict().items()}
    groups = ("model.", *(f"critics.{name}." for name, _ in learner.critics.items()))
    groups += tuple(f"optimizer.{name}." for name in learner.named_parameters())
    shapes = read_shapes(file)
    wanted = {name for name in shapes if name.startswith(groups) or name == "tally"}
    numbers = sum(math.prod(shapes[name]) for name in wanted)
    most = MOST_NUMBERS_PER_WEIGHT * sum(tensor.numel() for tensor in own.values()) + MOST_NUMBERS_BESIDE
    if numbers > most:
        raise DataError(
            f"{file}: holds {numbers:,} numbers, but a training state of this config has at most {most:,}",
            hint="name a checkpoint of the same run",
        )
    return read_tensors(file, wanted)


def _skipped_in_a_row(file: Path) -> int:
    tally = read_tensors(file, {"tally"}).get("tally")
    if tally is None:
        return 0
    try:
        return int(_checked_tally(tally)[-1])
    except ValueError as error:
        raise _no_state(file, error) from error


def _checked_tally(values: Tensor, length: int | None = None) -> Tensor:
    """A stored tally [length], or of any length, after checking that a `Tally` can have given it.

    Raises:
        ValueError: it has another shape or type, or a count of steps in it is no count.
    """
    is_row = values.ndim == 1 and len(values) >= 3 and length in (None, len(values))
    if not is_row or values.dtype != torch.float32:
        expected = "one row" if length is None else f"[{length}]"
        raise ValueError(
            f"tally has shape {list(values.shape)} in {values.dtype}, not {expected} in torch.float32"
        )
    counts_3 = values[-3:]
    if not (counts_3.isfinite() & (counts_3 >= 0)).all():
        raise ValueError(f"tally counts {counts_3.tolist()} steps")
    return values


def _load_critics(learner: Learner, tensors: dict[str, Tensor], file: Path) -> None:
    """Load the critics that the state has; a critic that it lacks, as another run may, starts from scratch."""
    for name, critic in learner.critics.items():
        prefix = f"critics.{name}."
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if weights:
            load_weights(critic, weights, file)


def _load_optimizer(learner: Learner, tensors: dict[str, Tensor]) -> None:
    """Load the optimiser's moments and step counts.

    Raises:
        ValueError: a moment has another shape than its parameter.
    """
    for parameter, name in _parameter_names(learner).items():
        prefix = f"optimizer.{name}."
        saved = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if saved:
            learner.optimizer.state[parameter] = {
                key: _placed_like(parameter, value, prefix + key) for key, value in saved.items()
            }


def _placed_like(parameter: Tensor, value: Tensor, name: str) -> Tensor:
    """A copy of a moment on its parameter's device and in its memory layout, or of a step count on that device.

    A fused optimiser walks parameters and moments by address, so moments in another layout would be shuffled.
    """
    if value.ndim == 0:
        return value.to(parameter.device, copy=True)
    if value.shape != parameter.shape:
        raise ValueError(f"{name} has shape {list(value.shape)}, its parameter {list(parameter.shape)}")
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _parameter_names(learner: Learner) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in learner.named_parameters().items()}


def _point(link: Path, name: str) -> None:
    temporary = link.with_name(f"{TEMPORARY_PREFIX}{link.name}")
    temporary.unlink(missing_ok=True)
    if not _linked(temporary, name):
        temporary.write_text(f"{name}\n", encoding="utf-8")
    temporary.replace(link)


def _linked(path: Path, name: str) -> bool:
    """Make a symlink, and return whether that worked: Windows cannot replace one by another, some disks have none."""
    if sys.platform == "win32":
        return False
    try:
        path.symlink_to(name)
    except OSError:  # if the folder is not writable, writing a file instead fails too, and says so
        return False
    return True


def drop_old(folder: Path, keep: int) -> None:
    """Delete all checkpoints but the `keep` newest and those that a link names.

    None is deleted while the newest is from amid skipped steps: training may yet go back to one before it.

    Raises:
        DataError: the newest state cannot be read.
    """
    newest = last_checkpoint(folder)
    if newest is not None and _skipped_in_a_row(newest / STATE_NAME):
        return
    kept = {follow(folder / link).resolve().name for link in LINKS}
    for path in _by_age(folder)[:-keep]:
        if path.name not in kept:
            with contextlib.suppress(OSError):  # a leftover costs disk, not correctness
                _discard(path)


def _bring_back(folder: Path) -> None:
    """Give back their names to checkpoints that were set aside to be replaced, but were not."""
    for aside in _set_aside(folder):
        before = folder / aside.name.removeprefix(REPLACED_PREFIX)
        if not before.exists():
            aside.rename(before)


def _set_aside(folder: Path) -> list[Path]:
    return list(folder.glob(f"{REPLACED_PREFIX}*"))


def _discard(path: Path) -> None:
    """Delete a checkpoint such that a kill meanwhile leaves none that looks complete but is not."""
    if path.is_dir():
        unnamed = path.with_name(f"{TEMPORARY_PREFIX}old-{path.name}")
        shutil.rmtree(unnamed, ignore_errors=True)
        path.rename(unnamed)
        shutil.rmtree(unnamed)
