"""Find the model file of a run or checkpoint. This module imports no torch."""

import contextlib
import os
import re
from pathlib import Path

from civae_core.errors import DataError, UsageError
from civae_core.reading import read_at_most

FILE_NAME = "model.safetensors"
LINKS = ("last", "best")
"""Names beside a run's checkpoints that point to one of them."""
MOST_NAME_BYTES = 256


def find_model_file(path: Path) -> Path:
    """The model file meant by `path`: the file itself, a checkpoint folder, or a run (its last checkpoint).

    Raises:
        UsageError: there is no such path.
        DataError: the folder holds no checkpoint.
    """
    path = follow(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(
            f"{path}: no such run, checkpoint or model file", hint="train one with `civae train`"
        )
    for candidate in (path / FILE_NAME, follow(path / "checkpoints" / "last") / FILE_NAME):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{path}: contains no {FILE_NAME} and no checkpoints/last",
        hint="name a run folder that has a checkpoint",
    )


def newest_run(
    folder: Path = Path("runs"),
    *,
    missing: str = "--model is not given",
    hint: str = "name a run with --model",
) -> Path:
    """The model used when none is named: $CIVAE_MODEL, else the run under `folder` with the newest checkpoint.

    Args:
        missing, hint: the calling command's words for "no run is named" and for how to name one.

    Raises:
        UsageError: there is neither, or the variable names a path that does not exist.
    """
    named = os.environ.get("CIVAE_MODEL")
    if named:
        path = Path(named)
        if not follow(path).exists():
            raise UsageError(
                f"$CIVAE_MODEL {named}: no such run, checkpoint or model file",
                hint=f"{hint}, or set the variable to an existing run",
            )
        return path
    links = {run: follow(run / "checkpoints" / "last") / FILE_NAME for run in folder.glob("*")}
    written = {run: file.stat().st_mtime for run, file in links.items() if file.is_file()}
    if not written:
        raise UsageError(
            f"{missing}, $CIVAE_MODEL is not set and {folder}/ contains no trained run",
            hint=f"{hint}, or train one with `civae train`",
        )
    return max(written, key=lambda run: written[run])


def follow(path: Path) -> Path:
    """The checkpoint that `last` or `best` points to: a link or, where links are not possible, a file with its name.

    Any other path is returned as it is, and so is a file that holds anything but the name of a checkpoint folder.
    """
    if path.name in LINKS and path.is_file():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            name = read_at_most(path, MOST_NAME_BYTES).decode("ascii").strip()
            if re.fullmatch(r"step-\d+", name):
                return path.parent / name
    return path
