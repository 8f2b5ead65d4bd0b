"""Training: one function that reads as a table of contents. All counts are in images."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.errors import DivergedError
from civae_core.overfitting import warn_if_overfit
from civae_core.progress import progress
from civae_core.training.bookkeeping import Bookkeeper
from civae_core.training.checkpoint import Counters, clear_unfinished, drop_old, mend_links
from civae_core.training.distributed import Processes, joined
from civae_core.training.feed import Feed
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import Learner
from civae_core.training.pairing import fit_pairing, steps_of
from civae_core.training.preparation import prepared
from civae_core.training.run_folder import RunFolder
from civae_core.training.setback import SETBACKS_ALLOWED, set_back
from civae_core.training.setup import make_card, make_model
from civae_core.training.stopping import StopRequest, stop_on_signals, stopped
from civae_core.training.trackers import tracked

log = logging.getLogger(__name__)

STOP_POLL_STEPS = 10
"""Number of steps after which distributed processes ask each other whether to stop."""


@dataclass(frozen=True)
class TrainResult:
    """Where a run stands when `train` returns."""

    run: Path
    images_seen: int
    finished: bool


def train(
    config: Config, out: Path, *, device: str = "auto", resume: str = "auto", stop_at: int | None = None
) -> TrainResult:
    """Train a run in `out`, from the start or from its last checkpoint.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        resume: `auto` continues where the folder's run stopped, `must` requires a checkpoint to continue from,
            `never` refuses a folder that has one, and a path starts from that checkpoint, or continues the run that
            did.
        stop_at: save and return once this many images have been seen, before `train.images`.

    Raises:
        UsageError: the config does not fit the data, the folder or the device.
        DataError: the data or the checkpoint cannot be read.
        CivaeError: the folder cannot be written, or another process is writing it.
        DivergedError: the loss stayed non-finite even at a lower learning rate, or there was no state to go back to;
            the last checkpoint is intact.
        PreemptedError, InterruptedRunError: a signal asked to stop; a checkpoint was saved.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        stop = stack.enter_context(stop_on_signals())
        folder = RunFolder(out)
        if processes.is_first:
            stack.enter_context(folder.logged())

        # Open data, device, checkpoint and model, and check them.
        ready = stack.enter_context(
            prepared(config, folder, processes, device=device, resume=resume, stop_at=stop_at)
        )
        data, roles, compute, start = ready.data, ready.roles, ready.compute, ready.start
        learner, counters = ready.learner, ready.counters

        # Claim the folder, now that everything fits.
        def claim() -> None:
            stack.enter_context(folder.held())
            start.require_newest(folder)
            folder.claim(lines=counters.metrics_lines, images=counters.images_seen)
            folder.open_log()
            clear_unfinished(folder.checkpoints)
            if start.is_own:
                mend_links(folder.checkpoints, counters)
                drop_old(folder.checkpoints, config.train.keep)
            facts = {"device": compute.describe(), "data": data.fingerprint, "started_from": start.origin}
            folder.write_description(config, facts)

        processes.lead(claim)
        learner.wrap(compiled=config.train.compile, distributed=processes.world_size > 1)

        # Train.
        is_work = counters.images_seen < ready.end or _pairing_is_due(config, learner, counters)
        wanted = processes.is_first and is_work
        books = Bookkeeper(
            config,
            folder,
            learner,
            HeldOut(
                data,
                ready.held_rows,
                roles,
                config,
                compute.device,
                ready.held_split,
                at_once=_part_size(learner, processes),
            ),
            counters,
            make_card(config, roles, data, ready.batches),
            stack.enter_context(tracked(config, folder, counters.images_seen, wanted=wanted)),
            writes=processes.is_first,
        )
        while True:
            try:
                _loop(config, learner, ready.feed, books, processes, stop, ready.end)
                break
            except DivergedError as error:
                if books.counters.setbacks >= SETBACKS_ALLOWED:
                    raise
                log.warning(error.message)
            fresh, seen = make_model(config, roles, data), books.counters.images_seen
            books.go_on_from(set_back(seen, start, folder, learner, fresh, processes))
        _pair_noises(config, learner, data, roles, books, processes, stop)
        seen = books.counters.images_seen
        if processes.is_first and seen >= config.train.images:
            warn_if_overfit(out)
        return TrainResult(out, seen, seen >= config.train.images)


def _loop(
    config: Config,
    learner: Learner,
    feed: Feed,
    books: Bookkeeper,
    processes: Processes,
    stop: StopRequest,
    limit: int,
) -> None:
    settings, counters = config.train, books.counters
    if counters.images_seen >= limit:
        if not _pairing_is_due(config, learner, counters):
            log.info("nothing to do: %s images are done", f"{counters.images_seen:,}")
        return
    begun = f"continuing from {counters.images_seen:,}" if counters.images_seen else "training"
    log.info("%s to %s images on %s", begun, f"{limit:,}", learner.compute.describe())
    means: dict[str, float] = {}
    with progress("train", limit, start=counters.images_seen, enabled=processes.is_first) as bar:
        while counters.images_seen < limit:
            seen = counters.images_seen
            fed = feed.at(seen)
            learner.step(fed.batch, seen, fed.partly)
            counters.images_seen += settings.batch_size
            finished = counters.images_seen >= limit
            if not finished:
                feed.prepare(counters.images_seen)

            if finished or books.due(settings.log_every):
                means = books.write_line(final=counters.images_seen >= settings.images)
            if finished or books.due(settings.sample_every):
                books.sample()
            if saved := finished or books.due(settings.checkpoint_every):
                books.save(validate=True)
            bar.advance(settings.batch_size, **{k: means[k] for k in ("loss", "kl", "mse") if k in means})

            steps = counters.images_seen // settings.batch_size
            if not finished and (reason := _asked_to_stop(stop, processes, steps)):
                if not saved:
                    books.save(validate=False)
                processes.wait_for_all()  # once one leaves, a launcher soon kills the others, even amid a checkpoint
                raise stopped(reason, _saved_at(counters))


def _pair_noises(
    config: Config,
    learner: Learner,
    data: PreparedData,
    roles: AttributeRoles,
    books: Bookkeeper,
    processes: Processes,
    stop: StopRequest,
) -> None:
    """Pair noises, the last step of a run that has seen all its images, in the first process.

    The others wait, and tell it if they are asked to stop. Until this is done, the last checkpoint has no pairing; a
    run resumed from it repeats this step, bit for bit.
    """
    model, counters = learner.average, books.counters
    if not _pairing_is_due(config, learner, counters):
        return
    images = config.train.images_to_pair
    log.info("pairing latent noises by the contours of %s images", f"{images:,}")

    def asked_to_stop(step: int) -> int:
        return _asked_to_stop(stop, processes, step)

    fitted = None
    if processes.is_first:
        fitted = fit_pairing(
            model,
            data,
            labelled_rows(data, roles, "train", warn=False),
            roles,
            images=images,
            seed=config.train.seed,
            device=learner.compute.device,
            stopped=asked_to_stop,
            at_once=_part_size(learner, processes),
        )
        finished = fitted is not None
    else:
        finished = not any(map(asked_to_stop, range(steps_of(images))))
    if reason := processes.largest(0 if finished else stop.reason):
        raise stopped(reason, _saved_at(counters))
    counters.paired = True
    if fitted is not None:
        learner.adopt_pairing()
        books.note_pairing(fitted)
        books.sample()
        books.save(validate=False)


def _part_size(learner: Learner, processes: Processes) -> int | None:
    """Number of images that a process computes at once; None if its batches are not cut into parts."""
    share = learner.config.train.batch_size // processes.world_size
    return share // learner.parts if learner.parts > 1 else None


def _pairing_is_due(config: Config, learner: Learner, counters: Counters) -> bool:
    seen_all = counters.images_seen >= config.train.images
    return seen_all and not counters.paired and learner.average.pairing is not None


def _asked_to_stop(stop: StopRequest, processes: Processes, steps: int) -> int:
    """The reason to stop after so many steps, the same in all processes; 0 if there is none."""
    if processes.world_size == 1:
        return stop.reason
    return processes.largest(stop.reason) if steps % STOP_POLL_STEPS == 0 else 0


def _saved_at(counters: Counters) -> str:
    return f"stopped at {counters.images_seen:,} images, after saving"
