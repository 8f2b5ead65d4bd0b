"""Everything that training does before its first write; `train --dry-run` does the same."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.config.effects import without_effect
from civae_core.data import PreparedData
from civae_core.data.batches import TrainingBatches
from civae_core.data.labelled import LabelledRows, labelled_rows
from civae_core.data.splits import Split
from civae_core.locks import require_unheld
from civae_core.training.checkpoint import Counters
from civae_core.training.device import Compute, choose_device
from civae_core.training.distributed import Processes
from civae_core.training.feed import Feed
from civae_core.training.learner import Learner, parts_asked_for
from civae_core.training.memory import fit_parts, most_parts, out_of_memory_explained
from civae_core.training.run_folder import RunFolder
from civae_core.training.setup import (
    assign_roles,
    make_batches,
    make_feed,
    make_model,
    make_partly_batches,
    validation_split,
)
from civae_core.training.start import Start, find_start
from civae_core.training.trackers import require_trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What a run begins with. Each process has its own device and its own share of the batches."""

    data: PreparedData
    roles: AttributeRoles
    held_split: Split
    """The split on which the run is validated."""
    held_rows: LabelledRows
    """The rows of that split that lack no label."""
    compute: Compute
    start: Start
    learner: Learner
    """Not wrapped yet; restored from the checkpoint of `start`, if there is one."""
    counters: Counters
    batches: TrainingBatches
    feed: Feed
    end: int
    """Images at which this call is to stop."""


@contextmanager
def prepared(
    config: Config,
    folder: RunFolder,
    processes: Processes,
    *,
    device: str = "auto",
    resume: str = "auto",
    stop_at: int | None = None,
) -> Iterator[Prepared]:
    """Open and check everything, and write nothing.

    Inside the block, PyTorch computes fast, and running out of memory is explained.

    Args: as for `train`.

    Raises:
        UsageError, DataError, CivaeError: as `train` does.
    """
    # Open and check the data before anything costly.
    data = PreparedData.open(config.data.path)
    for text in without_effect(config):
        log.warning("%s", text)
    roles = assign_roles(config, data)
    held_split = validation_split(data)
    held_rows = labelled_rows(data, roles, held_split)

    # Choose how to compute.
    processes.require_even_shares(config.train.batch_size, parts_asked_for(config.train))
    compute = Compute.choose(
        choose_device(processes.own_device(device)), config.train.precision, config.train.channels_last
    )
    parts = most_parts(config.train, compute, processes)
    with compute.fast_backends(), out_of_memory_explained(config, compute, processes, parts):
        # Find where to begin.
        def require_free() -> None:
            require_trackers(config.train.trackers)
            require_unheld(folder.path)

        processes.lead(require_free)
        start = find_start(folder, config, data, resume=resume, stop_at=stop_at)

        # Build the model and its optimiser, restore the checkpoint, and make the weighted batches.
        learner = Learner(make_model(config, roles, data), config, roles, compute)
        counters = start.restore(learner, processes)
        batches = make_batches(config, roles, data, compute, processes)
        partly = make_partly_batches(config, roles, data, compute, processes, batches)
        feed = make_feed(batches, partly, compute)
        learner.parts = fit_parts(learner, feed, counters.images_seen, processes)
        end = min(config.train.images, stop_at or config.train.images)
        with out_of_memory_explained(config, compute, processes, learner.parts):
            yield Prepared(
                data, roles, held_split, held_rows, compute, start, learner, counters, batches, feed, end
            )
