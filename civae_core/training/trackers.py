"""TensorBoard and Weights & Biases, if `train.trackers` asks for them: lines of metrics.jsonl, and sample grids.

They are extras to the run's own files and never endanger the run: a tracker that fails is dropped with one warning.
Both packages take long to import, so each is imported only if it is asked for.
"""

import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from civae_core.config import Config, dump_config
from civae_core.errors import CivaeError, PreemptedError, UsageError
from civae_core.extras import install, missing
from civae_core.files import write_text
from civae_core.reading import read_at_most
from civae_core.training.run_folder import RunFolder, flat

log = logging.getLogger(__name__)

SAMPLES = "samples"
"""Name of the sample grids in a tracker."""
WANDB_ID = "wandb-id.txt"
"""File in a run's folder with its Weights & Biases id, by which a resumed run is resumed there too."""
CONNECT_S, UPLOAD_S = 30, 30
"""Seconds to wait for Weights & Biases at the start of training, and for the remaining uploads at its end."""


class Tracker(Protocol):
    """A service to which training reports its progress; once it raises anything, it is dropped."""

    def line(self, values: Mapping[str, Any]) -> None:
        """Take a line of metrics.jsonl: `images`, and numbers and strings under their keys there."""

    def picture(self, path: Path, images: int) -> None:
        """Take the PNG of a sample grid, made after `images` images."""

    def close(self, error: BaseException | None) -> None:
        """Make sure that nothing is left unwritten.

        Args:
            error: what ended the training; None if it did what it was asked for.
        """


class Trackers:
    """All trackers of a run, by name."""

    def __init__(self, begin: Mapping[str, Callable[[], Tracker]]) -> None:
        """
        Args:
            begin: functions that open the trackers; one that cannot be opened is left out.
        """
        self._open: dict[str, Tracker] = {}
        for name, start in begin.items():
            try:
                self._open[name] = start()
            except Exception as error:
                _warn(name, error)

    def line(self, values: Mapping[str, Any]) -> None:
        self._tell(lambda tracker: tracker.line(values))

    def picture(self, path: Path, images: int) -> None:
        self._tell(lambda tracker: tracker.picture(path, images))

    def close(self, error: BaseException | None = None) -> None:
        self._tell(lambda tracker: tracker.close(error))
        self._open.clear()

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tell(tracker)
            except Exception as error:  # from third-party code, which may raise anything
                _warn(name, error)
                del self._open[name]
                with suppress(Exception):
                    tracker.close(error)


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose extra is not installed, without importing any.

    Raises:
        UsageError: names the first of them.
    """
    for name in names:
        if missing(name):
            raise UsageError(f"train.trackers: the extra `{name}` is not installed", hint=install(name))


@contextmanager
def tracked(config: Config, folder: RunFolder, images_seen: int, *, wanted: bool) -> Iterator[Trackers]:
    """Send every line of metrics that is written while the block runs to the config's trackers.

    Args:
        folder: already claimed, so that it knows which lines of metrics are measured again.
        images_seen: images from which the run continues.
        wanted: False opens no tracker.
    """
    begin: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(config, folder, images_seen),
        "wandb": lambda: WeightsAndBiases(config, folder),
    }
    trackers = Trackers({name: begin[name] for name in config.train.trackers} if wanted else {})
    folder.measured.followers.append(trackers.line)
    try:
        yield trackers
    except BaseException as error:
        trackers.close(error)
        raise
    finally:
        folder.measured.followers.remove(trackers.line)
        trackers.close()


class TensorBoard:
    """Event files in RUN/tensorboard, one for each time that the run was started or resumed."""

    def __init__(self, config: Config, folder: RunFolder, images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # What an earlier process reported for later images is hidden, since it is measured again.
        self._writer = SummaryWriter(folder.path / "tensorboard", purge_step=images_seen + 1)
        settings = {key: _plain(value) for key, value in flat(config.model_dump()).items()}
        files: Any = self._writer.file_writer  # add_hparams would make a separate run, in its own folder
        for part in hparams(settings, {"valid_loss": None}):
            files.add_summary(part)
        self._writer.add_text("config", _as_code(dump_config(config)), images_seen)
        self._writer.flush()

    def line(self, values: Mapping[str, Any]) -> None:
        images = values["images"]
        if any(isinstance(value, str) for value in values.values()):
            self._writer.add_text("events", _as_code(json.dumps(values)), images)
        else:
            for key in values.keys() - {"images"}:
                self._writer.add_scalar(key, values[key], images)
        self._writer.flush()  # at once, like metrics.jsonl: both agree whenever one looks, or kills

    def picture(self, path: Path, images: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels_HWC = np.asarray(picture.convert("RGB"))
        self._writer.add_image(SAMPLES, pixels_HWC, images, dataformats="HWC")
        self._writer.flush()

    def close(self, error: BaseException | None) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One run there for each run here, however often it is resumed; its own files are in RUN/wandb."""

    def __init__(self, config: Config, folder: RunFolder) -> None:
        import wandb

        self._as_image = wandb.Image
        id_file = folder.path / WANDB_ID
        known = read_at_most(id_file, 1_000).decode().strip() if id_file.exists() else None
        settings: dict[str, Any] = {
            "id": known or secrets.token_hex(4),
            "resume": "allow",
            "dir": str(folder.path),
            "project": os.environ.get("WANDB_PROJECT", "civae"),
            # A resumed run keeps the name that it may have been given there since.
            "name": None if known else os.environ.get("WANDB_NAME", folder.path.resolve().name),
            "reinit": "create_new",
            "settings": wandb.Settings(
                console="off", silent=True, init_timeout=CONNECT_S, finish_timeout=UPLOAD_S
            ),
        }
        with _nobody_at_the_keyboard():
            try:
                self._run = wandb.init(**settings)
            except wandb.Error as error:
                log.warning("train.trackers: wandb continues offline: %s", _first_line(error))
                wandb.teardown()  # or it would still hold the id
                self._run = wandb.init(**settings, mode="offline")
        write_text(id_file, f"{settings['id']}\n")
        self._run.config.update(flat(config.model_dump(mode="json")), allow_val_change=True)
        # Not wandb's own steps, which must not decrease: after a setback, images do.
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")
        self._told_to = folder.measured.dropped_to if known else 0
        if self._run.offline:
            log.info("wandb: upload later with: wandb sync %s", Path(self._run.dir).parent)
        elif self._run.url:
            log.info("wandb: %s", self._run.url)

    def line(self, values: Mapping[str, Any]) -> None:
        if "event" in values:
            self._told_to = 0  # a setback: report the second attempt too, as metrics.jsonl does
        if values["images"] > self._told_to:
            self._run.log(dict(values))

    def picture(self, path: Path, images: int) -> None:
        if images > self._told_to:
            self._run.log({"images": images, SAMPLES: self._as_image(str(path))})

    def close(self, error: BaseException | None) -> None:
        if isinstance(error, PreemptedError):
            self._run.mark_preempting()
        code = error.exit_code if isinstance(error, CivaeError) else int(error is not None)
        self._run.finish(exit_code=code)


@contextmanager
def _nobody_at_the_keyboard() -> Iterator[None]:
    """Keep wandb from asking for a key: without a terminal, it raises an error about the missing key instead."""
    terminal = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = terminal


def _warn(name: str, error: Exception) -> None:
    log.warning("train.trackers: %s gets no further reports of this run: %s", name, _first_line(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _as_code(text: str) -> str:
    """Text as a Markdown code block, which TensorBoard shows verbatim instead of rendering it."""
    return "\n".join(f"    {line}" for line in text.splitlines())
