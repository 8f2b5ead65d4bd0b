"""Reading files of strangers: never more than a bound, and never from what is no file."""

import errno
import os
import stat
from pathlib import Path


def read_at_most(path: Path, most: int, *, regular: bool = True) -> bytes:
    """A file's content.

    Args:
        path: the file.
        most: bytes, of which one more is an error.
        regular: refuse pipes and devices, which may block or never end; a path that the user typed may be a pipe.

    Raises:
        OSError: it cannot be read, is longer than `most`, or is no regular file; `strerror` says which.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | (getattr(os, "O_NONBLOCK", 0) if regular else 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if regular and not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if stat.S_ISREG(status.st_mode) and status.st_size > most:
            raise _too_large(path, most)
        data = file.read(most + 1)
    if len(data) > most:
        raise _too_large(path, most)
    return data


def require_regular(path: Path) -> None:
    """Refuses pipes and devices before a library opens them, which might block for ever.

    Raises:
        OSError: it is not there, or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than the {most:,} bytes that are read", str(path))
