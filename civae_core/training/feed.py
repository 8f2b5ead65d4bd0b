"""Batches for the training loop: on a CUDA device, the next one is copied there while a step computes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from civae_core.data.batches import Batch


@dataclass(frozen=True)
class Fed:
    """What one step learns from: the batch and, if there are any, images that lack labels."""

    batch: Batch
    partly: Batch | None


class Lane(Protocol):
    """A place where copies run while computation continues."""

    def copying(self) -> AbstractContextManager[object]:
        """A context in which copies run in the lane."""

    def hand_over(self, fed: Fed) -> None:
        """Let computation use `fed` as soon as the lane has finished it."""


class Feed:
    """Batches, indexed by the images seen before them; the next one can be prepared ahead.

    `make` must be a pure function, so that a batch prepared in vain costs only time. Without a lane, `prepare` does
    nothing.
    """

    def __init__(self, make: Callable[[int], Fed], lane: Lane | None) -> None:
        self._make, self._lane = make, lane
        self._ahead: tuple[int, Fed] | None = None

    def at(self, images_seen: int) -> Fed:
        """The batch that follows the first `images_seen` images."""
        if self._lane is None:
            return self._make(images_seen)
        if self._ahead is None or self._ahead[0] != images_seen:
            self.prepare(images_seen)
        assert self._ahead is not None
        _, fed = self._ahead
        self._ahead = None
        self._lane.hand_over(fed)
        return fed

    def prepare(self, images_seen: int) -> None:
        """Start to make the batch that will be asked for next; call once a step has been sent to the device."""
        if self._lane is not None:
            with self._lane.copying():
                self._ahead = images_seen, self._make(images_seen)


class CudaLane:
    """A CUDA stream of its own, separate from the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def copying(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def hand_over(self, fed: Fed) -> None:
        computing = torch.cuda.current_stream(self._stream.device)
        computing.wait_stream(self._stream)
        for batch in (fed.batch, fed.partly):
            if batch is not None:
                for values in vars(batch).values():
                    # The allocator must not give this memory to the next copy while a step still reads it.
                    values.record_stream(computing)


def lane_of(device: torch.device) -> Lane | None:
    """A lane for a device that can copy while it computes, else None."""
    return CudaLane(device) if device.type == "cuda" else None
