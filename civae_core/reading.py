"""Reading of untrusted files: never more than a limit, and only from regular files unless allowed."""

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_JSON_BYTES = 2**24
"""Largest JSON file that is read; few of ours reach a hundredth of it."""


def read_at_most(path: Path | str, most: int, *, regular: bool = True, follow: bool = True) -> bytes:
    """A file's content.

    Args:
        path: the file.
        most: largest size in bytes; a longer file is an error.
        regular: refuse pipes and devices, which may block or never end; False allows a pipe that the user names.
        follow: follow a link at the path's end; if False, it is an error, except on Windows.

    Raises:
        OSError: the file cannot be read, is longer than `most`, or is not regular; `strerror` says which.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | (getattr(os, "O_NONBLOCK", 0) if regular else 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        is_regular = stat.S_ISREG(status.st_mode)
        if regular and not is_regular:
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            raise _too_large(path, most)
        # A pipe states no size, so it is read in parts: os.read would allocate the largest size at once.
        wanted = status.st_size if is_regular else most + 1
        parts, count = [], 0
        while count < wanted and (part := os.read(descriptor, wanted - count if is_regular else 2**16)):
            parts.append(part)
            count += len(part)
        if count > most:
            raise _too_large(path, most)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


def require_regular(path: Path) -> None:
    """Refuse pipes and devices before a library opens them, which might block forever.

    Raises:
        OSError: the file does not exist, or is not regular.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


@contextmanager
def utf8_path(place: Path) -> Iterator[Path]:
    """A path to a file or folder in valid UTF-8: its own or, while the block runs, one of the system's.

    The safetensors and ONNX Runtime libraries take no other.

    Raises:
        OSError: the place's own path is not valid UTF-8, and it cannot be opened.
    """
    if str(place).encode("utf-8", "ignore").decode() == str(place):
        yield place
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        yield Path(f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """The JSON value in a file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read, is longer, or is not regular.
        ValueError: the file is not JSON in UTF-8, repeats a key of an object, or is nested too deeply.
    """
    return parse_json(read_at_most(path, most).decode("utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON value.

    Raises:
        ValueError: the text is not JSON, repeats a key of an object, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def finite_number(value: object) -> float | None:
    """A value from a file as a finite float; None if it is no number, a boolean, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def strict(value: Any) -> Any:
    """Make plain values strictly valid JSON: NaN and infinities become null, and lone surrogates are escaped."""
    if isinstance(value, dict):
        return {strict(key): strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in made if names.count(name) > 1)!r} appears twice")
    return made


def _too_large(path: Path | str, most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than the {most:,} bytes that are allowed", str(path))
