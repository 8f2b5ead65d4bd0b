"""Folders that are whole or absent, as `civae_core.files` has it of files."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from civae_core.errors import UsageError
from civae_core.files import describe_os_error, sync


@contextmanager
def replaced(folder: Path, marks: tuple[str, ...], kind: str) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, which on success takes its place, and is removed otherwise.

    Args:
        marks: files by which an earlier folder of this kind is known.
        kind: what such a folder is called, for messages.

    Raises:
        UsageError: `folder` holds something else.
        CivaeError: it cannot be written, or the disk is full.
    """
    if folder.exists() and not all((folder / mark).is_file() for mark in marks):
        raise UsageError(f"{folder}: exists and is not {kind}", hint="name another folder with --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise describe_os_error(error, folder) from error
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if folder.exists():
            # A folder is renamed over an empty one only.
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
            folder.replace(old)
            try:
                temporary.replace(folder)
            except OSError:
                old.replace(folder)
                raise
            shutil.rmtree(old)
        else:
            temporary.replace(folder)
        sync(folder.parent)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
