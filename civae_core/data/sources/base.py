"""What every source of images provides: a table known in advance, and a reader for ranges of its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from civae_core.assignments import Intervention
from civae_core.data.images import Preprocessing, square_of
from civae_core.data.resize import Square, resize_squares
from civae_core.data.tables import Table
from civae_core.errors import DataError


@dataclass(frozen=True)
class TruthSpec:
    """A known intervention, such as name "Young=flip" with do {"Young": "flip"}."""

    name: str
    do: Intervention


@dataclass(frozen=True)
class TruthBatch:
    """True counterfactuals of some rows: attributes float32 [M,A] and images uint8 [M,C,S,S] under do()."""

    rows: np.ndarray
    attributes_MA: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Prepared images uint8 [n,C,S,S] of the rows `kept`; `rejected` says which rows failed and why.

    `truths` has one entry for each of the source's `TruthSpec`s.
    """

    kept: np.ndarray
    images: np.ndarray
    rejected: list[tuple[int, str]] = field(default_factory=list)
    truths: tuple[TruthBatch, ...] = ()


class Reader(Protocol):
    """Makes the images of table rows; picklable, because it is sent to worker processes."""

    def read(self, rows: range) -> Batch: ...


@dataclass(frozen=True)
class Question:
    """What is to be asked of the data; only the report depends on it (overlap and counts of known labels)."""

    treatment: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Images with attributes, ready to be packed.

    `identity` holds plain values that distinguish one preparation from another; it is stored with the data.
    """

    name: str
    identity: dict[str, Any]
    table: Table
    splits_N: np.ndarray
    preprocessing: Preprocessing
    reader: Reader
    truths: tuple[TruthSpec, ...] = ()
    question: Question = Question()


class Files(Protocol):
    """Where a `FileReader` finds its files: a folder, or a zip that is never unpacked."""

    def read(self, name: str) -> bytes:
        """The content of a file; raises DataError if it is missing or damaged."""
        ...


_TOGETHER = 2**19
"""Bytes of pictures that are resized together: a few of CelebA's; many more would exceed the processor's cache."""


@dataclass(frozen=True)
class FileReader:
    """Decodes image files one after another; a bad file is listed as rejected instead of ending the job."""

    files: Files
    file_names: Sequence[str]
    preprocessing: Preprocessing
    show: Callable[[bytes, Preprocessing], Square] = square_of
    """Returns the part of a picture that a model sees, from the file's content. Sent to workers, like all fields."""

    def read(self, rows: range) -> Batch:
        size, channels = self.preprocessing.size, self.preprocessing.channels
        images = np.empty((len(rows), channels, size, size), np.uint8)
        kept: list[int] = []
        rejected: list[tuple[int, str]] = []
        waiting: list[Square] = []
        for row in rows:
            try:
                waiting.append(self.show(self.files.read(self.file_names[row]), self.preprocessing))
            except DataError as error:
                rejected.append((row, error.message.removeprefix("image: ")))
            else:
                kept.append(row)
            if row == rows[-1] or sum(square.pixels_HWC.nbytes for square in waiting) > _TOGETHER:
                resize_squares(waiting, images[len(kept) - len(waiting) :])
                waiting.clear()
        return Batch(np.array(kept, np.int64), images[: len(kept)], rejected)
