"""A run on disk: its settings, where it ran, and what it measured."""

import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import torch

from civae_core import __version__
from civae_core.config import Config, dump_config, load_config
from civae_core.errors import CivaeError, UsageError
from civae_core.file_names import EVALUATION, REPORT_PAGE
from civae_core.files import (
    atomic_file,
    describe_os_error,
    make_folder,
    remove_unfinished,
    write_json,
    write_text,
)
from civae_core.locks import LOCK_NAME, Lock, held
from civae_core.machine import nvidia_driver
from civae_core.reading import read_json
from civae_core.training.metrics_file import MetricsFile

log = logging.getLogger(__name__)

OUR_NAMES = {
    "config.yml", "command.txt", "env.json", "metrics.jsonl", "log.txt", "samples", "checkpoints",
    EVALUATION, REPORT_PAGE, "tensorboard", "wandb", "wandb-id.txt",
}  # fmt: skip
FREE_TO_CHANGE = {
    "data.path", "data.cache", "train.images", "train.accumulate", "train.checkpoint_activations",
    "train.log_every", "train.checkpoint_every",
    "train.sample_every", "train.validate_images", "train.keep", "train.trackers",
}  # fmt: skip
"""Keys that may change when a run is resumed; any other difference would make it another run."""


class RunFolder:
    """Paths and append-only records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.measured = MetricsFile(self.metrics)
        self._lock: Lock | None = None
        self._facts = path / "env.json"
        self._log = MemoryHandler(0)  # keeps what is logged before there is a folder to write it to

    def require_free(self) -> None:
        """Refuse a folder that is neither new, nor empty, nor a run; other files inside a run do not matter.

        Raises:
            UsageError: the path is a file, or the folder holds files that are not a run's.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path}: is a file, not a folder", hint="name a new or empty folder")
        if not self.path.exists() or (self._facts.is_file() and self.checkpoints.is_dir()):
            return
        foreign = sorted(p.name for p in self.path.iterdir() if not _is_ours(p))
        if foreign:
            raise UsageError(
                f"--out {self.path}: is neither empty nor a run (it holds {foreign[0]})",
                hint="name a new or empty folder",
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder if necessary, and keep other processes from writing to it while the block runs.

        Raises:
            CivaeError: the folder cannot be written, or another process holds it.
        """
        make_folder(self.path)
        with held(self.path) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def require_held(self) -> None:
        """Refuse to write to a folder that has vanished or that another process has taken over.

        Raises:
            CivaeError: the folder has vanished or was taken over; the message says which.
        """
        if self._lock is not None:
            self._lock.require()

    def claim(self, *, lines: int | None = None, images: int) -> None:
        """Create the folder's parts, or take over those that a run left.

        What that run measured after the checkpoint is dropped, and so is what it left half written when killed.

        Args: as for `MetricsFile.cut_back`.

        Raises:
            CivaeError: the folder cannot be written.
        """
        make_folder(self.checkpoints)
        make_folder(self.samples)
        for folder in (self.path, self.samples):
            remove_unfinished(folder)
        self.measured.cut_back(lines=lines, images=images)

    def origin(self) -> str | None:
        """The other run or checkpoint from which this run was started, as given to --resume; None if unknown."""
        try:
            named = read_json(self._facts).get("started_from")
        except (OSError, ValueError, AttributeError):
            return None  # no run yet, or an env.json that was edited: no known origin
        return str(named) if named else None

    def write_description(self, config: Config, facts: dict[str, Any]) -> None:
        """Write what describes this run: config.yml, command.txt and env.json."""
        with atomic_file(self.path / "command.txt") as temporary:
            # As it was typed, with file names that are no UTF-8 too.
            temporary.write_bytes(os.fsencode(shlex.join(sys.argv) + "\n"))
        write_json(self._facts, environment() | facts)
        write_text(self.path / "config.yml", dump_config(config))

    def require_same(self, config: Config) -> None:
        """Refuse to continue a run under another config.

        Raises:
            UsageError: names the keys that differ.
        """
        file = self.path / "config.yml"
        if not file.is_file():
            return
        before, now = flat(load_config([file]).model_dump()), flat(config.model_dump())
        changed = [k for k in now if k not in FREE_TO_CHANGE and before.get(k) != now[k]]
        if changed:
            listed = ", ".join(f"{key} ({before.get(key)} → {now[key]})" for key in changed)
            raise UsageError(
                f"--out {self.path}: holds a run with a different config: {listed}",
                hint="name another --out, or use the settings that the run was started with",
            )
        if before["train.images"] != now["train.images"] and now["train.lr_decay"] != "none":
            log.warning(
                "train.images changed from %s to %s: the learning rate's decay changes with it",
                before["train.images"], now["train.images"],
            )  # fmt: skip

    def record(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; non-finite numbers become null.

        Raises:
            CivaeError: the file cannot be written, or the folder is no longer this process's.
        """
        self.require_held()
        self.measured.append(values)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Keep everything that civae_core logs for log.txt and, if the run ends early, the reason.

        It is written once `open_log` is called; a run that is refused before that leaves nothing behind.
        """
        logger = logging.getLogger("civae_core")
        logger.addHandler(self._log)
        try:
            yield
        except CivaeError as error:
            # For this file only: the caller reports the error to the user.
            self._log.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, error.message, (), None))
            raise
        finally:
            logger.removeHandler(self._log)
            written = self._log.target
            self._log.close()
            if written is not None:
                written.close()

    def open_log(self) -> None:
        """Write to log.txt what has been logged so far, and from now on everything immediately.

        Raises:
            CivaeError: log.txt cannot be written.
        """
        path = self.path / "log.txt"
        try:
            written = _LogFile(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise describe_os_error(error, path) from error
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.setTarget(written)
        self._log.flush()


class _LogFile(logging.FileHandler):
    """A log that loses lines on a full disk without ending the run; essential files report such errors themselves."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def environment() -> dict[str, Any]:
    """Versions, machine, GPUs with their driver, and source revision, as needed to reproduce a run."""
    facts: dict[str, Any] = {
        "civae": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "threads": torch.get_num_threads(),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "git": _git_revision(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
        facts["driver"] = nvidia_driver()
    return facts


def _git_revision() -> str | None:
    """The commit of this source, with `+changes` if it was edited since; None for an installed copy."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # a copy may lie inside somebody else's repository
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes")
    except (OSError, subprocess.SubprocessError):
        return None


def _is_ours(path: Path) -> bool:
    return path.name in OUR_NAMES or path.name.endswith(".tmp") or path.name.startswith(LOCK_NAME)


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config's values by their dotted keys, such as `train.lr`."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
