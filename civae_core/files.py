"""Files that are whole or absent: write beside, flush to disk, rename over."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from civae_core.errors import CivaeError
from civae_core.os_errors import hint_on_writing

TEMPORARY_SUFFIX = ".tmp"
LOCK_NAME = ".civae-lock"
"""Of the file by which a process holds a folder (civae_core.locks)."""


def describe_os_error(error: OSError, path: Path) -> CivaeError:
    """Turns an operating-system error into one sentence with a hint."""
    return CivaeError(f"cannot write {path}: {error.strerror or error}", hint=hint_on_writing(error))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed over `path`, else removed.

    Raises:
        CivaeError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise describe_os_error(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        apply_umask(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise describe_os_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Deletes what a process that was killed amid an `atomic_file` left in a folder; not that of a lock."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if not path.name.startswith(LOCK_NAME):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON atomically; NaN and infinities are refused because JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Flushes a file or a directory entry to the disk; on Windows files only, whose folders cannot be opened."""
    on_windows = sys.platform == "win32"
    if on_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Creates a folder with its parents.

    Raises:
        CivaeError: it cannot be created or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise describe_os_error(error, path) from error


def is_macos_leftover(path: Path) -> bool:
    """Whether a file is a `._name`, which macOS writes beside `name` on foreign disks and which holds none of it."""
    return path.name.startswith("._")


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def apply_umask(path: Path) -> None:
    """Gives a file that was made private, as temporary files are, the permissions of any other new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
