"""Write folders completely or not at all, as `civae_core.files` does with files."""

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
    """Yield a temporary folder beside `folder`, which replaces it on success and is removed otherwise.

    Args:
        marks: files by which an earlier folder of this kind is recognised.
        kind: what messages call such a folder.

    Raises:
        UsageError: `folder` holds something else.
        CivaeError: the folder cannot be written, or the disk is full.
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
            # A folder can only be renamed over an empty one.
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
