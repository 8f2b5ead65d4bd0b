"""Recovery from divergence: once, training returns to its last good state and continues at a lower learning rate."""

import logging

from civae_core.errors import DivergedError, UsageError
from civae_core.model import IntactVAE
from civae_core.training.checkpoint import Counters, discard_after, last_good_checkpoint, mend_links
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.run_folder import RunFolder
from civae_core.training.start import Start

log = logging.getLogger(__name__)

SETBACKS_ALLOWED = 1


def set_back(
    diverged_at: int,
    start: Start,
    folder: RunFolder,
    learner: Learner,
    fresh: IntactVAE,
    processes: Processes,
) -> Counters:
    """Bring a learner back to the newest checkpoint from before the divergence, or else to where the run began.

    All processes read the same checkpoint, and compare what they read. Only then does the first one delete the later
    checkpoints, so that a run that is killed does not continue from one of them.

    Args:
        diverged_at: images seen when training was given up, for the record.
        fresh: the network as at the beginning of training.

    Returns:
        The counts to continue from; the learner's rate has been lowered.

    Raises:
        DivergedError: the run has no good checkpoint, and the run that it was started from has none either by now.
        CivaeError: a checkpoint cannot be read, or is another run's and gone; not all processes found the same one;
            or a later one cannot be deleted.
    """
    good = last_good_checkpoint(folder.checkpoints)
    learner.start_over(fresh)
    back = _beginning(diverged_at, start) if good is None else Start(good, True, start.origin)
    counters = back.restore(learner, processes)
    counters.setbacks += 1
    counters.metrics_lines = folder.measured.lines
    learner.lower_rate(counters.setbacks)
    if processes.is_first:
        discard_after(folder.checkpoints, counters.images_seen if good is not None else -1)
        if good is not None:
            mend_links(folder.checkpoints, counters)
        facts = {"event": "diverged", "back_to": counters.images_seen, "rate_factor": learner.rate_factor}
        folder.record({"images": diverged_at} | facts)
    log.warning(
        "training diverged at %s images: going back to %s, with the learning rate at %.0f %%",
        f"{diverged_at:,}",
        f"{counters.images_seen:,}",
        100 * learner.rate_factor,
    )
    return counters


def _beginning(diverged_at: int, start: Start) -> Start:
    try:
        return start.beginning(diverged_at)
    except UsageError as error:
        raise DivergedError(
            f"training diverged at {diverged_at:,} images with no good checkpoint to go back to, and {start.origin}, "
            "from which it was started, is gone or has seen as many images by now",
            hint="start again in a new --out with a lower train.lr, or in train.precision fp32",
        ) from error
