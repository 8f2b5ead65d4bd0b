"""Write folders completely or not at all, as `civae_core.files` does with files."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from civae_core.errors import UsageError
from civae_core.files import describe_os_error, exists, is_macos_leftover, sync

LEFTOVERS = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers leave in the folders that they show, and make again."""


@contextmanager
def replaced(folder: Path, files_of: Callable[[Path], Collection[str]], kind: str) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which replaces it on success and is removed otherwise.

    Nothing but an earlier folder of the same kind is ever removed, with `LEFTOVERS` in it.

    Args:
        folder: may be missing, empty, a folder of this kind, or a link to such a place.
        files_of: names of the files that make up a folder of this kind; none for any other folder.
        kind: what messages call such a folder.

    Raises:
        UsageError: `folder` holds something else, is the current folder, or is a disk of its own.
        CivaeError: the folder cannot be written, or the disk is full.
    """
    try:
        _require_replaceable(folder, files_of, kind)
        place = Path(os.path.realpath(folder))
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    except OSError as error:
        raise describe_os_error(error, folder) from error
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        _require_replaceable(folder, files_of, kind)  # something may have been put there meanwhile
        if place.exists():
            # A folder can only be renamed over an empty one.
            old = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
            place.replace(old)
            try:
                temporary.replace(place)
            except OSError:
                old.replace(place)
                raise
            shutil.rmtree(old)
        else:
            temporary.replace(place)
        sync(place.parent)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_replaceable(folder: Path, files_of: Callable[[Path], Collection[str]], kind: str) -> None:
    """Refuse a folder with anything in it that is not of this kind, or that cannot be renamed."""
    if not exists(folder):
        return
    files = files_of(folder) if folder.is_dir() else ()
    others = _others(folder, files) if folder.is_dir() else [folder.name]
    if others and not files:
        raise UsageError(
            f"{folder}: exists and is not {kind}",
            hint="name another folder with --out, or delete this one if it is a damaged export",
        )
    if others:
        raise UsageError(
            f"{folder}: exporting anew would delete what was changed or put there since: {', '.join(others[:3])}"
            + (", …" if others[3:] else ""),
            hint="export to another folder with --out, and copy the new files from there",
        )
    current = folder.samefile(os.curdir)
    if current or os.path.ismount(os.path.realpath(folder)):  # of a link itself it would say no
        what = "the current folder" if current else "a disk of its own"
        raise UsageError(
            f"{folder}: is {what}, which cannot be exchanged for a new one",
            hint=f"name a new folder in it, as in --out {folder / 'model'}",
        )


def _others(folder: Path, files: Collection[str]) -> list[str]:
    """Names of everything in a folder but these files and leftovers of file managers."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if not (path.is_file() and (path.name in (*files, *LEFTOVERS) or is_macos_leftover(path)))
    )
