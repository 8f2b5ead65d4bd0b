"""What is kept of every image while batches of them pass: rows go in, one array of all of them comes out."""

import torch
from torch import Tensor

_BLOCK = 4096
"""Rows that are kept in one piece."""


class KeptRows:
    """Rows [n,…] in the order in which they were added, on the CPU, in a few large pieces.

    A tensor of each batch, kept between the large ones that a network makes and gives back, takes the rest of its
    place in memory from whatever is made next: 10,000 images of 32 pixels, of which 50 MiB were kept, held 300 MiB
    more that nothing could use.
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows_N: Tensor) -> None:
        """Adds rows; all have the first ones' shape and dtype."""
        left_N = rows_N.detach()
        while len(left_N) or not self._blocks:
            if self._count == _BLOCK * len(self._blocks):
                self._blocks.append(torch.empty(_BLOCK, *rows_N.shape[1:], dtype=rows_N.dtype))
            place = self._count % _BLOCK
            taken_M = left_N[: _BLOCK - place]
            self._blocks[-1][place : place + len(taken_M)] = taken_M
            self._count += len(taken_M)
            left_N = left_N[len(taken_M) :]

    @property
    def all(self) -> Tensor:
        """A copy of all rows so far; empty before the first."""
        return torch.cat(self._blocks)[: self._count] if self._blocks else torch.zeros(0)

    def keep_every(self, stride: int) -> None:
        """Forgets all rows but the first of every `stride`."""
        rows_N = self.all[::stride]
        self._blocks, self._count = [], 0
        self.add(rows_N)
