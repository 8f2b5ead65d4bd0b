"""Memory of a training step: measure it, fit batches into it, and advise what to do when it runs out."""

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from civae_core.config import Config, TrainConfig
from civae_core.errors import CivaeError
from civae_core.out_of_memory import is_out_of_memory
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.feed import Feed
from civae_core.training.learner import Learner, parts_asked_for

log = logging.getLogger(__name__)

MARGIN = 0.05
"""Share of a device's memory that a fit leaves free, for what a single step does not reveal."""


@dataclass
class Peak:
    """The largest number of bytes held at once."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak while the block runs; the result is set when the block ends.

    On a CUDA device the peak covers all that torch had allocated there, including earlier allocations. Elsewhere it
    covers the tensors made in the block while they are alive, without what operators use internally.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    with _LiveBytes() as counted:
        yield peak
    peak.bytes = counted.most


class _LiveBytes(TorchDispatchMode):
    """Follows each tensor's storage from the operator that made it until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Storage that existed before, and is only viewed or written to, was not made here.
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (key := _key(tensor)) not in self._sizes and key not in given:
                storage = tensor.untyped_storage()
                self._sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, key)
        self.most = max(self.most, self.now)
        return made

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def held_bytes(learner: Learner) -> int:
    """Bytes of the weights, their average and the critics: what exists before the first step."""
    networks = (learner.model, learner.average, learner.critics)
    tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    return sum(tensor.nbytes for tensor in tensors)


def fit_parts(
    learner: Learner,
    feed: Feed,
    images_seen: int,
    processes: Processes,
) -> int:
    """Number of parts in which a batch is computed: what the config says or, with `auto`, as few as fit.

    On a GPU, each number is tried with a real batch, forward and backward, beside placeholders for what the optimiser
    and the exchange of gradients will hold. All processes take the smallest number that fits each of them.

    Raises:
        RuntimeError: not even single images fit; `is_out_of_memory` is true of it.
    """
    wanted = learner.config.train.accumulate
    device = learner.compute.device
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        log.info("train.accumulate auto: 1, since only a GPU's memory is measured")
        return 1
    return _fewest_parts(learner, feed, images_seen, processes, _reserve(learner, processes))


def _fewest_parts(
    learner: Learner,
    feed: Feed,
    images_seen: int,
    processes: Processes,
    reserve: Callable[[], list[Tensor]],
) -> int:
    share = learner.config.train.batch_size // processes.world_size
    refused: RuntimeError | None = None
    for parts in (n for n in range(1, share + 1) if share % n == 0):
        try:
            held = reserve()
            learner.try_gradients(feed.at(images_seen), images_seen, parts)
            fits = True
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            refused, fits = error.with_traceback(None), False  # the traceback keeps the tensors alive
        finally:
            held = []  # noqa: F841 - releases the placeholders
        if not fits:
            gc.collect()
        if learner.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        if not processes.largest(int(not fits)):
            log.info("train.accumulate auto: %s", describe_parts(parts, share))
            return parts
    raise refused or torch.OutOfMemoryError("another process ran out of memory")


def _reserve(learner: Learner, processes: Processes) -> Callable[[], list[Tensor]]:
    """A function that makes placeholders: AdamW's two moments unless they exist, gradient buckets, and a margin."""
    device = learner.compute.device
    weights = sum(parameter.nbytes for parameter in learner.named_parameters().values())
    copies = (0 if learner.optimizer.state else 2) + (1 if processes.world_size > 1 else 0)
    margin = int(MARGIN * torch.cuda.get_device_properties(device).total_memory)

    def make() -> list[Tensor]:
        return [torch.empty(size, dtype=torch.uint8, device=device) for size in (*[weights] * copies, margin)]

    return make


def describe_parts(parts: int, share: int) -> str:
    """The number of parts in words, for the log."""
    return "whole batches" if parts == 1 else f"batches in {parts} parts of {share // parts} images"


def most_parts(train: TrainConfig, compute: Compute, processes: Processes) -> int:
    """Largest number of parts that `fit_parts` tries: single images if it measures."""
    measures = train.accumulate == "auto" and compute.device.type == "cuda"
    return train.batch_size // processes.world_size if measures else parts_asked_for(train)


@contextmanager
def out_of_memory_explained(
    config: Config, compute: Compute, processes: Processes, parts: int
) -> Iterator[None]:
    """Turn running out of memory into a sentence with settings that help.

    Args:
        parts: number of parts in which each process computes its batch inside the block.

    Raises:
        CivaeError: in place of the error that said so (`is_out_of_memory`).
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _explained(config, compute, processes, parts) from error


def _explained(config: Config, compute: Compute, processes: Processes, parts: int) -> CivaeError:
    train = config.train
    share = train.batch_size // processes.world_size
    images = share // parts
    advice = []
    more = next((n for n in range(2 * parts, share + 1) if share % n == 0), None)
    if more is not None:
        advice.append(f"train.accumulate={more} (the same training, {share // more} images at once)")
    if not train.checkpoint_activations and config.model.norm != "batch":
        advice.append("train.checkpoint_activations=true (the same training, slower)")
    if len(advice) < 2:
        advice.append(
            f"model.width={max(config.model.width // 2, 1)} (another, smaller network, in a new --out)"
        )
    if config.data.cache == "device":
        advice.insert(0, "data.cache=ram (the same training)")
    return CivaeError(
        f"out of memory on {compute.device} with {images} image{'s' * (images != 1)} at once, "
        f"{compute.precision}",
        hint=f"run it again with --set {' or --set '.join(advice[:2])}",
    )
