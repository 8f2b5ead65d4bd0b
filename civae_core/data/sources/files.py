"""Bytes of image files, from a folder or from inside a zip archive."""

import contextlib
import functools
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from civae_core.data.images import MAX_BYTES
from civae_core.errors import DataError
from civae_core.reading import read_at_most, require_regular

MOST_LIST_BYTES = 2**30
"""Size limit of a list inside an archive, unpacked."""

# RuntimeError: an encrypted member. NotImplementedError: an archive feature that Python lacks.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)
"""What reading a damaged archive is known to raise."""

_NO_LINKS = hasattr(os, "O_NOFOLLOW")
"""Whether the platform can open a file on condition that it is not a link."""

# Other methods unpack more at once than is requested, so that a small member could fill the memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class FolderFiles:
    """Files of a folder; links that leave it are refused unless `follow_links` is set."""

    folder: Path
    follow_links: bool = False

    def read(self, name: str) -> bytes:
        path = os.path.join(self.folder, name)  # noqa: PTH118 - several times as fast, for each of many files
        try:
            if not self.follow_links:
                if _NO_LINKS and _is_inside(self.folder, os.path.dirname(name)):  # noqa: PTH120
                    with contextlib.suppress(OSError):  # perhaps a link: checked below
                        return read_at_most(path, MAX_BYTES, follow=False)
                if not Path(path).resolve().is_relative_to(_resolved(self.folder)):
                    raise DataError("a link that leaves the image folder; --follow-links would follow it")
            return read_at_most(path, MAX_BYTES)
        except FileNotFoundError as error:
            raise DataError("the file is missing") from error
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: circular links
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"cannot be read: {reason or error}") from error


@functools.lru_cache(maxsize=4)
def _resolved(folder: Path) -> Path:
    return folder.resolve()  # the same for each of many files


@functools.lru_cache(maxsize=1024)
def _is_inside(folder: Path, below: str) -> bool:
    """Whether the sub-folder `below`, with all links resolved, is within `folder`."""
    return (folder / below).resolve().is_relative_to(_resolved(folder))


@dataclass(frozen=True)
class ZipFiles:
    """Members of a zip archive below the folder `prefix` ("" or ending in a slash)."""

    archive: Path
    prefix: str

    def read(self, name: str) -> bytes:
        try:
            with open_member(self.archive, self.prefix + name, MAX_BYTES) as file:
                # If asked for more, it would unpack beyond the size that the directory states, then cut that off.
                return file.read(open_archive(self.archive).getinfo(self.prefix + name).file_size)
        except KeyError as error:
            raise DataError("the file is missing from the archive") from error
        except ARCHIVE_ERRORS as error:
            raise DataError(f"cannot be read from the archive: {error}") from error


def open_member(archive: Path, name: str, most: int) -> IO[bytes]:
    """Open a member of an archive, unpacked as it is read; the size that it states may be at most `most` bytes.

    Raises:
        KeyError: there is no such member.
        DataError: the archive cannot be opened, or the member is too large or neither stored nor deflated.
    """
    opened = open_archive(archive)
    member = opened.getinfo(name)
    if member.file_size > most:
        raise DataError(
            f"{name} unpacks to {member.file_size:,} bytes, more than the limit of {most:,}",
            hint="download the archive again, from another source if need be; no list or image is that large",
        )
    if member.compress_type not in _METHODS:
        raise DataError(
            f"{name} is packed with a method other than deflate; pack the archive again",
            hint="unpack it and name the folder, or pack it with `zip -r`",
        )
    return opened.open(member)


@functools.lru_cache(maxsize=4)
def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive, once in each process: CelebA's directory of 200,000 members takes a second to read.

    Raises:
        DataError: the file cannot be opened or is not a zip file.
    """
    try:
        require_regular(path)
        return zipfile.ZipFile(path)
    except ARCHIVE_ERRORS as error:
        raise DataError(
            f"cannot open {path}: {error}", hint="copy or download the archive again; it may be incomplete"
        ) from error
