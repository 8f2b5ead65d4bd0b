"""The image files of a prepared folder as one sequence of images, with few files mapped at a time."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from civae_core.data.tensorfile import TensorFile

MAPPED_AT_ONCE = 64
"""Each mapped file takes a file handle; a process often has 1,024, and 100 million images are 1,100 files."""


class Shards:
    """Images uint8 [N,C,S,S] in consecutive files.

    Every file is opened once to check it; beyond `MAPPED_AT_ONCE` files, the least recently used one is closed.

    Args:
        open_file: opens a file by its name.
        listed: names of the files with their numbers of images, in order.
        shape: shape of an image, (C, S, S).

    Raises:
        DataError: a file is missing, truncated, not written by civae, or of another shape.
    """

    def __init__(
        self,
        open_file: Callable[[str], TensorFile],
        listed: Sequence[tuple[str, int]],
        shape: tuple[int, int, int],
    ) -> None:
        def mapped(number: int) -> np.ndarray:
            name, count = listed[number]
            return open_file(name).array("images", np.uint8, (count, *shape))

        self._shape = shape
        self._mapped = lru_cache(MAPPED_AT_ONCE)(mapped)
        self._starts = np.cumsum([0, *(count for _, count in listed)])
        for number in range(len(listed)):
            self._mapped(number)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the images of the given rows, in the same order; rows must be within 0 … N−1."""
        out = np.empty((len(rows), *self._shape), np.uint8)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            out[here] = self._mapped(int(number))[rows[here] - self._starts[number]]
        return out
