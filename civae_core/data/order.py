"""Orders in which training visits its images: a fresh permutation for each epoch, as a function of the position.

No order has state that a checkpoint would have to store, and none depends on how many processes share a batch.
"""

from collections.abc import Callable, Hashable
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from civae_core.randomness import generator_for

Shuffle = Literal["full", "blocks"]
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

BLOCK = 1_024
"""Number of neighbouring items that `BlockOrder` keeps together."""
BLOCKS_AT_ONCE = 64
"""Number of blocks that are shuffled together: 65,536 images, which take 0.8 GB at 64 px."""


class Order(Protocol):
    """An endless order of items 0 … count − 1."""

    def items(self, start: int, length: int) -> Tensor:
        """Items at positions start … start + length − 1, int64 [length]."""


def make_order(shuffle: Shuffle, count: int, seed: int) -> Order:
    """The order of `count` items that `data.shuffle` selects."""
    return ShuffledOrder(count, seed) if shuffle == "full" else BlockOrder(count, seed)


class ShuffledOrder:
    """A full shuffle: any item may come anywhere in an epoch.

    The whole permutation of an epoch is held, 8 bytes per item, and reads jump about the whole data set.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epochs = _Recent(self._permutation)

    def items(self, start: int, length: int) -> Tensor:
        """Items at positions start … start + length − 1, int64 [length]."""
        parts = []
        for epoch, offset, taken in _by_epoch(start, length, self.count):
            parts.append(self._epochs.get(epoch)[offset : offset + taken])
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=generator_for(self.seed, "order", epoch))


class BlockOrder:
    """A shuffle within windows, each made of some blocks of neighbouring items drawn from the whole data set.

    The blocks start at a different item in each epoch, so that different neighbours are separated. Only the
    permutation of a window is held, and reads stay within its blocks, which suits data larger than memory.
    """

    def __init__(self, count: int, seed: int, *, block: int = BLOCK, at_once: int = BLOCKS_AT_ONCE) -> None:
        self.count, self.seed = count, seed
        self.block, self.at_once = min(block, count), at_once
        self._epochs, self._windows = _Recent(self._blocks), _Recent(self._window)

    def items(self, start: int, length: int) -> Tensor:
        """Items at positions start … start + length − 1, int64 [length]."""
        parts = []
        for epoch, offset, taken in _by_epoch(start, length, self.count):
            while taken:
                window, first = self._window_at(epoch, offset)
                part = window[offset - first : offset - first + taken]
                parts.append(part)
                offset, taken = offset + len(part), taken - len(part)
        return torch.cat(parts)

    def _window_at(self, epoch: int, offset: int) -> tuple[Tensor, int]:
        """The window that contains an offset of an epoch, as items in order, and the offset of its first item."""
        _, ends = self._epochs.get(epoch)
        number = int(torch.searchsorted(ends, offset, right=True)) // self.at_once
        first = int(ends[number * self.at_once - 1]) if number else 0
        return self._windows.get((epoch, number)), first

    def _blocks(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The blocks of an epoch in order, and the offset in the epoch at which each of them ends."""
        count = -(-self.count // self.block)
        blocks = torch.randperm(count, generator=generator_for(self.seed, "blocks", epoch))
        return blocks, self._lengths(blocks).cumsum(0)

    def _lengths(self, blocks: Tensor) -> Tensor:
        return (self.count - blocks * self.block).clamp(max=self.block)

    def _window(self, key: tuple[int, int]) -> Tensor:
        epoch, number = key
        blocks, _ = self._epochs.get(epoch)
        chosen = blocks[number * self.at_once : (number + 1) * self.at_once]
        lengths = self._lengths(chosen)
        firsts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]])
        within = torch.arange(int(lengths.sum())) - firsts.repeat_interleave(lengths)
        items = (chosen * self.block).repeat_interleave(lengths) + within
        shift = torch.randint(self.block, (1,), generator=generator_for(self.seed, "shift", epoch))
        order = torch.randperm(len(items), generator=generator_for(self.seed, f"window {number}", epoch))
        return (items[order] + shift) % self.count


class _Recent(Generic[Key, Value]):
    """A cache of the last two values, since a batch may cross a boundary; others are computed again."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        self._make = make
        self._values: dict[Key, Value] = {}

    def get(self, key: Key) -> Value:
        if key not in self._values:
            latest = dict(list(self._values.items())[-1:])
            self._values = {**latest, key: self._make(key)}
        return self._values[key]


def _by_epoch(start: int, length: int, count: int) -> list[tuple[int, int, int]]:
    """Positions start … start + length − 1, split at epoch ends: (epoch, offset within it, number of items)."""
    stretches = []
    while length:
        epoch, offset = divmod(start, count)
        taken = min(length, count - offset)
        stretches.append((epoch, offset, taken))
        start, length = start + taken, length - taken
    return stretches
