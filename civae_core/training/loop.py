"""Training: one function that reads as a table of contents. All counts are in images."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.data.batches import TrainingBatches
from civae_core.data.labelled import labelled_rows
from civae_core.errors import InterruptedRunError, PreemptedError, UsageError
from civae_core.model.stored import find_model_file, read_card
from civae_core.progress import progress
from civae_core.training.bookkeeping import Bookkeeper
from civae_core.training.checkpoint import (
    Counters,
    clear_unfinished,
    last_checkpoint,
    mend_links,
    restore_checkpoint,
)
from civae_core.training.device import Compute, choose_device
from civae_core.training.distributed import Processes, joined
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import Learner
from civae_core.training.run_folder import RunFolder
from civae_core.training.setup import (
    assign_roles,
    make_batches,
    make_card,
    make_model,
    validation_split,
)
from civae_core.training.stopping import INTERRUPTED, StopRequest, stop_on_signals

log = logging.getLogger(__name__)

STOP_POLL_STEPS = 10
"""Distributed processes ask each other about a stop only every so many steps."""


@dataclass(frozen=True)
class TrainResult:
    """Where a run stands when `train` returns."""

    run: Path
    images_seen: int
    finished: bool


def train(
    config: Config, out: Path, *, device: str = "auto", resume: str = "auto", stop_at: int | None = None
) -> TrainResult:
    """Trains a run in `out`, from the start or from its last checkpoint.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        resume: `auto` goes on where the folder's run stopped, `must` insists on it, `never` refuses a folder that
            has a checkpoint, and a path starts from that checkpoint, or goes on with the run that did.
        stop_at: save and return once this many images were seen, before `train.images`.

    Raises:
        UsageError: the config does not fit the data, the folder or the device.
        DataError: the data or the checkpoint cannot be read.
        DivergedError: the loss stayed non-finite; the last checkpoint is from before.
        PreemptedError, InterruptedRunError: a signal asked to stop; a checkpoint was saved.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        stop = stack.enter_context(stop_on_signals())

        # Open and check the data before anything costly.
        data = PreparedData.open(config.data.path)
        roles = assign_roles(config, data)
        held_rows = labelled_rows(data, roles, validation_split(data))

        # Choose how to compute.
        _require_even_shares(config.train.batch_size, processes)
        compute = Compute.choose(
            choose_device(processes.own_device(device)), config.train.precision, config.train.channels_last
        )
        _set_backends(compute)

        # Claim the folder, and find where to go on.
        folder = RunFolder(out)
        folder.require_free()
        start = _find_start(folder, config, resume)
        is_own = start is not None and start.parent == folder.checkpoints
        if start is not None and is_own:
            _require_same_data(start, data, folder)
            origin = folder.origin()
        else:
            origin = None if start is None else resume
        if processes.is_first:
            folder.claim()
            clear_unfinished(folder.checkpoints)
            stack.enter_context(folder.logged())

        # Build the model with its optimiser, and the batches with their weights.
        learner = Learner(make_model(config, roles, data), config, roles, compute)
        batches = make_batches(config, roles, data, compute, processes)
        counters = Counters() if start is None else restore_checkpoint(start, learner)
        if not is_own:
            counters = Counters(counters.images_seen)  # another run's best is not in this folder
        elif processes.is_first:
            mend_links(folder.checkpoints, counters)
        learner.wrap(compiled=config.train.compile, distributed=processes.world_size > 1)
        if processes.is_first:
            facts = {"device": compute.describe(), "data": data.fingerprint, "started_from": origin}
            folder.describe(config, facts)

        # Train.
        books = Bookkeeper(
            config,
            folder,
            learner,
            HeldOut(data, held_rows, roles, config, compute.device),
            counters,
            make_card(config, roles, data, batches),
            writes=processes.is_first,
        )
        _loop(config, learner, batches, books, processes, stop, stop_at)
        return TrainResult(out, counters.images_seen, counters.images_seen >= config.train.images)


def _loop(
    config: Config,
    learner: Learner,
    batches: TrainingBatches,
    books: Bookkeeper,
    processes: Processes,
    stop: StopRequest,
    stop_at: int | None,
) -> None:
    settings, counters = config.train, books.counters
    limit = min(settings.images, stop_at or settings.images)
    if counters.images_seen >= limit:
        log.info("nothing to do: %s images are done", f"{counters.images_seen:,}")
        return
    begun = f"continuing at {counters.images_seen:,}" if counters.images_seen else "training"
    log.info("%s, to %s images, on %s", begun, f"{limit:,}", learner.compute.describe())
    means: dict[str, float] = {}
    with progress("train", limit, start=counters.images_seen, enabled=processes.is_first) as bar:
        while counters.images_seen < limit:
            learner.step(batches.at(counters.images_seen), counters.images_seen)
            counters.images_seen += settings.batch_size
            finished = counters.images_seen >= limit

            if finished or books.due(settings.log_every):
                means = books.write_line(final=counters.images_seen >= settings.images)
            if finished or books.due(settings.sample_every):
                books.sample()
            if saved := finished or books.due(settings.checkpoint_every):
                books.save(validate=True)
            bar.advance(settings.batch_size, **{k: means[k] for k in ("loss", "kl", "mse") if k in means})

            if not finished and (reason := _asked_to_stop(stop, processes, counters, settings.batch_size)):
                if not saved:
                    books.save(validate=False)
                raise _stopped(reason, counters.images_seen)


def _asked_to_stop(stop: StopRequest, processes: Processes, counters: Counters, batch_size: int) -> int:
    if processes.world_size == 1:
        return stop.reason
    steps = counters.images_seen // batch_size
    return processes.any(stop.reason) if steps % STOP_POLL_STEPS == 0 else 0


def _stopped(reason: int, images: int) -> PreemptedError | InterruptedRunError:
    kind = InterruptedRunError if reason == INTERRUPTED else PreemptedError
    return kind(f"stopped at {images:,} images, after saving", hint="run the same command again to continue")


def _find_start(folder: RunFolder, config: Config, resume: str) -> Path | None:
    """The checkpoint to go on from, by the meaning of `--resume`.

    Raises:
        UsageError: there is none where one is required, one where none may be, or it is another run's.
    """
    own = last_checkpoint(folder.checkpoints)
    if resume not in ("auto", "must", "never") and (own is None or folder.origin() != resume):
        if own is not None:
            raise UsageError(
                f"--resume {resume}: {folder.path} already holds a run that did not start from it",
                hint="name a new --out to start from another run's checkpoint",
            )
        start = last_checkpoint(Path(resume) / "checkpoints") or Path(resume)
        if not start.is_dir():
            raise UsageError(f"--resume {resume}: no such run or checkpoint folder")
        return start
    if own is None and resume == "must":
        raise UsageError(
            f"--resume must: {folder.path} holds no checkpoint", hint="use --resume auto to start"
        )
    if own is not None and resume == "never":
        raise UsageError(
            f"--resume never: {folder.path} already holds a run",
            hint="name another --out, or delete that folder",
        )
    folder.require_same(config)
    return own


def _require_same_data(start: Path, data: PreparedData, folder: RunFolder) -> None:
    before = read_card(find_model_file(start)).data
    if before["fingerprint"] != data.fingerprint:
        raise UsageError(
            f"data.path: {data.path} holds other images than {folder.path} was trained on ({before['path']})",
            hint="name another --out, or give the data it was started with",
        )


def _require_even_shares(batch_size: int, processes: Processes) -> None:
    if batch_size % processes.world_size:
        raise UsageError(
            f"train.batch_size: {batch_size} images cannot be shared evenly by {processes.world_size} processes"
        )


def _set_backends(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_flush_denormal(True)
