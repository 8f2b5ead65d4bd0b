"""Atomic writes, which leave a file complete or absent: write beside it, flush to disk, rename over it."""

import errno
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
"""Name of the file by which a process holds a folder (civae_core.locks)."""


def describe_os_error(error: OSError, path: Path) -> CivaeError:
    """Turn an operating-system error on writing into one sentence with a hint."""
    return CivaeError(f"cannot write {path}: {error.strerror or error}", hint=hint_on_writing(error))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, else removed.

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
    """Delete the temporary files of processes that were killed during `atomic_file`, except those of locks."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if not path.name.startswith(LOCK_NAME):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text atomically; bytes of file names that are no UTF-8 are written as `\udce9`."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically; NaN and infinities are refused because JSON has none.

    Bytes of file names that are no UTF-8 read back as they were: JSON escapes them as `write_text` does.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Flush a file or a directory entry to disk; on Windows only files, because folders cannot be opened there."""
    on_windows = sys.platform == "win32"
    if on_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder with its parents.

    Raises:
        CivaeError: the folder cannot be created or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise describe_os_error(error, path) from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; there is none with a name longer than any file system has."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def is_macos_leftover(path: Path) -> bool:
    """Whether a file is a `._name`, which macOS writes beside `name` on foreign disks, with none of its content."""
    return path.name.startswith("._")


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def apply_umask(path: Path) -> None:
    """Give a file that was created private, as temporary files are, the permissions of any other new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
