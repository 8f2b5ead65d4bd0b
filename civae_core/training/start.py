"""Where a run begins: from scratch, from its own last checkpoint, or from another run's. Nothing is written here."""

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.errors import CivaeError, UsageError
from civae_core.model.stored import read_card
from civae_core.model_paths import find_model_file, follow
from civae_core.training.checkpoint import Counters, last_checkpoint, restore_checkpoint
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The state from which a run begins or continues."""

    checkpoint: Path | None
    is_own: bool
    """Whether the checkpoint is one of the run's own."""
    origin: str | None
    """The other run or checkpoint from which the run was started, as given to --resume."""

    def restore(self, learner: Learner, processes: Processes) -> Counters:
        """Load the checkpoint, if there is one, into a learner, and return the counts to continue from.

        Raises:
            DataError: it does not fit the learner, or cannot be read.
            CivaeError: another process found another checkpoint; all processes then raise.
        """
        counters = self._restore(learner)
        # The counts include the best loss so far, which tells two runs of equal length apart.
        if processes.differ(zlib.crc32(repr(counters).encode())):
            raise CivaeError(
                f"not all processes begin from the same checkpoint: this one found {self.checkpoint or 'none'}",
                hint="let all hosts share the folders of --out and --resume, and run the same command again once "
                "each host lists the same checkpoints",
            )
        return counters

    def _restore(self, learner: Learner) -> Counters:
        if self.checkpoint is None:
            return Counters(metrics_lines=0)
        counters = restore_checkpoint(self.checkpoint, learner)
        if counters.images_seen < learner.config.train.images:
            # More images remain to be learned than when the run ended, and noises are paired after all of them.
            counters.paired = False
            learner.forget_pairing()
        if not self.is_own:
            # Another run's best checkpoint and metrics are not in this folder, and its setbacks do not count here.
            learner.tally.load(torch.zeros_like(learner.tally.values()))
            return Counters(counters.images_seen, metrics_lines=0)
        learner.lower_rate(counters.setbacks)
        return counters

    def beginning(self, before: int) -> "Start":
        """Where the run began before it had a checkpoint of its own.

        Args:
            before: images that the run has seen by now; it began with fewer.

        Raises:
            UsageError: the run that this one was started from is gone, or has itself seen as many images by now.
        """
        if not self.is_own:
            return self
        origin = self.origin
        checkpoint = None if origin is None else _other_runs_checkpoint(origin, before, None)
        return Start(checkpoint, False, origin)

    def require_newest(self, folder: RunFolder) -> None:
        """Refuse to continue from a checkpoint that is no longer the folder's last; call with the folder held.

        Raises:
            CivaeError: another process has trained the run since `find_start` looked.
        """
        own = last_checkpoint(folder.checkpoints)
        if own != (self.checkpoint if self.is_own else None):
            raise CivaeError(
                f"{folder.path}: another process has just trained this run",
                hint="run the same command again to continue from there",
            )


def find_start(
    folder: RunFolder, config: Config, data: PreparedData, *, resume: str, stop_at: int | None
) -> Start:
    """Find where a run in `folder` begins, according to --resume.

    Raises:
        UsageError: the folder holds other files or another run; a checkpoint is required but missing, or present but
            forbidden; the run from which this one was started is gone; or another run's checkpoint leaves nothing to
            train.
        DataError: a checkpoint's model cannot be read.
    """
    folder.require_free()
    own = last_checkpoint(folder.checkpoints)
    names_another = resume not in ("auto", "must", "never")
    if names_another and (own is None or folder.origin() != resume):
        if own is not None:
            raise UsageError(
                f"--resume {resume}: {folder.path} already holds a run that did not start from it",
                hint="name a new --out to start from another run's checkpoint",
            )
        return Start(_other_runs_checkpoint(resume, config.train.images, stop_at), False, resume)
    if own is None and resume == "must":
        raise UsageError(f"--resume must: {folder.path} has no checkpoint", hint="use --resume auto to start")
    if own is not None and resume == "never":
        raise UsageError(
            f"--resume never: {folder.path} already holds a run",
            hint="name another --out, or delete that folder",
        )
    folder.require_same(config)
    if own is None:
        origin = folder.origin() if resume == "auto" else None
        return Start(None, False, None) if origin is None else _start_again(folder, origin, config, stop_at)
    _require_same_data(own, data, folder)
    return Start(own, True, folder.origin())


def _start_again(folder: RunFolder, origin: str, config: Config, stop_at: int | None) -> Start:
    """Start from another run as before: the run in `folder` did, and ended without a checkpoint of its own."""
    if not follow(Path(origin)).is_dir():
        raise UsageError(
            f"--out {folder.path}: holds a run started from {origin}, which is no longer there",
            hint="name its new place with --resume, or use --resume never to start from scratch",
        )
    log.info("starting from %s again: the run has no checkpoint yet", origin)
    return Start(_other_runs_checkpoint(origin, config.train.images, stop_at), False, origin)


def _other_runs_checkpoint(resume: str, images: int, stop_at: int | None) -> Path:
    checkpoint = last_checkpoint(Path(resume) / "checkpoints") or follow(Path(resume))
    if not checkpoint.is_dir():
        raise UsageError(
            f"--resume {resume}: no such run or checkpoint folder",
            hint="name a run, or a folder in its checkpoints/; auto, must and never refer to the run in --out",
        )
    seen = read_card(find_model_file(checkpoint)).images_seen
    end = min(images, stop_at or images)
    if seen >= end:
        wanted = f"train.images is {end:,}" if end == images else f"--stop-at is {end:,}"
        raise UsageError(
            f"--resume {resume}: has seen {seen:,} images already and {wanted}, so nothing is left to train",
            hint="the count continues from the checkpoint's: set train.images to its images plus the new ones",
        )
    return checkpoint


def _require_same_data(checkpoint: Path, data: PreparedData, folder: RunFolder) -> None:
    before = read_card(find_model_file(checkpoint)).data
    if before["fingerprint"] != data.fingerprint:
        raise UsageError(
            f"data.path: {data.path} holds other images than those {folder.path} was trained on ({before['path']})",
            hint="name another --out, or use the data that the run was started with",
        )
