"""Safetensors files, read through a memory map and written as a stream.

The library's own functions copy whole tensors. Shards may be larger than memory, so rows are gathered directly from
the mapped file here, and files are written piece by piece. The layout is the public one: eight bytes with the length
of the header, a JSON header, then the tensors' bytes without gaps.
"""

import json
import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from civae_core.errors import DataError
from civae_core.files import atomic_file
from civae_core.os_errors import hint_on_reading
from civae_core.reading import parse_json, require_regular

_DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 2**24
_MOST_DIMENSIONS, _MOST_NUMBERS = 8, 2**60
_FOREIGN_HINT = "name a folder or file that civae wrote"
_DAMAGED_HINT = "copy the prepared data again, or delete it and prepare it again"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type, its shape, and its byte range from the start of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Stream:
    """A tensor to be written, as consecutive pieces of its bytes, so that it is never held in memory whole."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Iterable[bytes | memoryview]


class TensorFile:
    """A read-only, memory-mapped safetensors file.

    Raises:
        DataError: the file is missing, truncated, or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            require_regular(path)
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror or error}", hint=hint_on_reading(error, _FOREIGN_HINT)
            ) from error
        except ValueError as error:  # an empty file cannot be mapped
            raise DataError(f"{path} is empty", hint=_DAMAGED_HINT) from error
        self.size = len(self._map)
        self.entries, self.metadata = _parse(memoryview(self._map), path)

    def array(self, name: str, dtype: type[Any], shape: tuple[int | None, ...]) -> np.ndarray:
        """The named tensor as a read-only view of the file; `None` in `shape` stands for any length.

        Raises:
            DataError: there is no such tensor, or its type or shape differs.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise DataError(f"{self.path} has no tensor {name!r}", hint=_FOREIGN_HINT)
        fits = len(entry.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, entry.shape, strict=True)
        )
        if entry.dtype != np.dtype(dtype) or not fits:
            wanted = f"{np.dtype(dtype)} [{', '.join('*' if n is None else str(n) for n in shape)}]"
            raise DataError(
                f"{self.path}: tensor {name!r} is {entry.dtype} {list(entry.shape)}, expected {wanted}",
                hint=_FOREIGN_HINT,
            )
        count = int(np.prod(entry.shape, dtype=np.int64))
        return np.frombuffer(self._map, entry.dtype, count, entry.start).reshape(entry.shape)

    def payload(self, name: str) -> memoryview:
        """The named tensor's bytes as a view of the file."""
        entry = self.entries[name]
        return memoryview(self._map)[entry.start : entry.stop]


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray | Stream], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; equal input gives equal bytes.

    Wide types come first, so that every tensor starts aligned.

    Raises:
        CivaeError: the file cannot be written.
        ValueError: a stream's pieces do not add up to its shape (a programming error).
    """
    streams = {name: _as_stream(tensor) for name, tensor in tensors.items()}
    ordered = sorted(streams.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name, stream in ordered:
        length = int(np.prod(stream.shape, dtype=np.int64)) * stream.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[stream.dtype],
            "shape": list(stream.shape),
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, stream in ordered:
            for piece in stream.pieces:
                file.write(piece)
        if file.tell() != 8 + len(text) + offset:
            raise ValueError(f"{path}: {file.tell()} bytes written, {8 + len(text) + offset} announced")


def _as_stream(tensor: np.ndarray | Stream) -> Stream:
    if isinstance(tensor, Stream):
        return tensor
    array = np.ascontiguousarray(tensor)  # a scalar becomes an array of one
    return Stream(array.dtype, tensor.shape, [array.reshape(-1).view(np.uint8).data])


def _parse(data: memoryview, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length < 2 or length > _LONGEST_HEADER or data[8:9] != b"{":
        raise DataError(f"{path} is not a safetensors file", hint=_FOREIGN_HINT)
    start = 8 + length
    if len(data) < start:
        raise _truncated(path, len(data), start)
    try:
        header = parse_json(bytes(data[8:start]))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        entries = {name: _entry(fields, start) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} has a damaged or foreign header", hint=_FOREIGN_HINT) from error
    end = start
    for entry in sorted(entries.values(), key=lambda entry: entry.start):
        length = math.prod(entry.shape) * entry.dtype.itemsize
        if entry.start != end or entry.stop - entry.start != length:
            raise DataError(
                f"{path} has a damaged header: its tensors overlap or leave gaps", hint=_DAMAGED_HINT
            )
        end = entry.stop
    if len(data) < end:
        raise _truncated(path, len(data), end)
    if len(data) > end:
        raise DataError(f"{path} is damaged: {len(data) - end:,} bytes too long", hint=_FOREIGN_HINT)
    return entries, metadata


def _entry(fields: Mapping[str, Any], start: int) -> Entry:
    """Parse one tensor of a header; ValueError if a number is not whole, or no memory could hold the shape."""
    shape, offsets = tuple(fields["shape"]), tuple(fields["data_offsets"])
    if any(type(n) is not int or n < 0 for n in shape + offsets) or len(offsets) != 2:
        raise ValueError("a shape or an offset is not a whole number")
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(n, 1) for n in shape) > _MOST_NUMBERS:
        raise ValueError("a shape is absurd")
    return Entry(_DTYPES[fields["dtype"]], shape, start + offsets[0], start + offsets[1])


def _truncated(path: Path, have: int, need: int) -> DataError:
    return DataError(
        f"{path} is truncated: {have:,} of at least {need:,} bytes",
        hint=_DAMAGED_HINT,
    )
