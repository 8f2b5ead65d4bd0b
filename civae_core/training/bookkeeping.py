"""What happens every so many images: a line of metrics, a sample grid, a checkpoint."""

import logging
import math
import time
from dataclasses import replace

from civae_core.config import Config
from civae_core.errors import DivergedError
from civae_core.model.stored import ModelCard
from civae_core.training.checkpoint import Counters, save_checkpoint
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import Learner
from civae_core.training.pairing import Fitted
from civae_core.training.run_folder import RunFolder
from civae_core.training.trackers import Trackers

log = logging.getLogger(__name__)

SKIPPED_IN_A_ROW_LIMIT = 20


class Bookkeeper:
    """Keeps a run's records in the first process; in the others it only watches for divergence."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        learner: Learner,
        held_out: HeldOut,
        counters: Counters,
        card: ModelCard,
        trackers: Trackers,
        *,
        writes: bool,
    ) -> None:
        """
        Args:
            trackers: receive sample grids from here; lines of metrics reach them through the folder.
        """
        self.config, self.folder, self.learner = config, folder, learner
        self.held_out, self.card, self.trackers, self.writes = held_out, card, trackers, writes
        self.go_on_from(counters)

    def go_on_from(self, counters: Counters) -> None:
        """Begin at these counts, at the start or after a setback."""
        self.counters = counters
        self._clock, self._images_at_clock = time.monotonic(), counters.images_seen

    def due(self, every: int) -> bool:
        """Whether the last batch crossed a multiple of `every`."""
        seen = self.counters.images_seen
        return seen // every > (seen - self.config.train.batch_size) // every

    def write_line(self, *, final: bool) -> dict[str, float]:
        """Append the means since the last line, over this process's images, to metrics.jsonl and return them.

        Raises:
            CivaeError: as in `note_pairing`.
            DivergedError: too many steps in a row or, at the end, all steps of the run had a non-finite gradient.
        """
        means, skipped, in_a_row = self.learner.tally.read()
        self.learner.tally.restart()
        seen, now = self.counters.images_seen, time.monotonic()
        speed = (seen - self._images_at_clock) / max(now - self._clock, 1e-9)
        self._clock, self._images_at_clock = now, seen
        line = {
            "images": seen,
            **means,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "skipped_steps": skipped,
            "images_per_second": round(speed, 2),
        }
        if self.writes:
            self.folder.record(line)
        if skipped:
            log.warning("%d steps with a non-finite loss or gradient were skipped", skipped)
        never_learned = final and in_a_row * self.config.train.batch_size >= seen
        if in_a_row >= SKIPPED_IN_A_ROW_LIMIT or never_learned:
            again = f", again with the learning rate at {self.learner.rate_factor:.0%}"
            raise DivergedError(
                f"training diverged: {in_a_row} steps in a row had a non-finite loss or gradient at {seen:,} images"
                + (again if self.counters.setbacks else ""),
                hint="the last checkpoint is intact; start again with a lower train.lr, or in train.precision fp32",
            )
        return means

    def note_pairing(self, fitted: Fitted) -> None:
        """Record how far apart the contours were before and after latent noises were paired.

        Raises:
            CivaeError: the disk is full, or the folder is gone, not writable or another process's.
        """
        self.folder.record({"images": self.counters.images_seen} | fitted.to_dict())

    def sample(self) -> None:
        """Write the grid of fixed held-out images.

        Raises:
            CivaeError: as in `note_pairing`.
        """
        if self.writes:
            self.folder.require_held()
            seen = self.counters.images_seen
            grid = self.held_out.save_grid(self.learner.average, self.folder, seen)
            self.trackers.picture(grid, seen)

    def save(self, *, validate: bool) -> None:
        """Write a checkpoint, which becomes `best` if its validation loss is the lowest so far.

        Raises:
            CivaeError: as in `note_pairing`.
        """
        if not self.writes:
            return
        counters, is_best = self.counters, False
        if validate:
            found = self.held_out.loss(self.learner.average)
            self.folder.record({"images": counters.images_seen, **found})
            loss, best = found["valid_loss"], counters.best_loss
            is_best = math.isfinite(loss) and (best is None or loss < best)
            if is_best:
                counters.best_loss, counters.best_images = loss, counters.images_seen
        counters.metrics_lines = self.folder.measured.lines
        self.folder.require_held()
        path = save_checkpoint(
            self.folder.checkpoints,
            self.learner,
            replace(
                self.card,
                images_seen=counters.images_seen,
                calibration=self.held_out.calibration(self.learner.average),
                familiarity=self.held_out.familiarity(self.learner.average),
                paired=counters.paired,
            ),
            counters,
            keep=self.config.train.keep,
            is_best=is_best,
        )
        log.debug("saved %s", path)
