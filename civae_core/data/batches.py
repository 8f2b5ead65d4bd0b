"""Batches of a training run, as a pure function of the number of images seen.

Nothing here has state that a checkpoint would have to store: the order of images, the flips and the noise all
follow from the seed and the position. Each process of a distributed run takes every `world_size`-th image of the
global batch, so the sequence of images does not depend on the number of processes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from civae_core.data.order import Shuffle, make_order
from civae_core.data.prepared import PreparedData
from civae_core.errors import CivaeError
from civae_core.randomness import generator_for

Cache = Literal["mmap", "ram", "device"]

COPIED_AT_ONCE = 4_096
"""Number of images copied into a cache at a time, so that filling it takes little additional memory."""


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch, on the training device; attributes in raw units, NaN where missing."""

    y_BCHW: Tensor
    """Images as floats in [0,1]."""
    x_BX: Tensor
    t_BT: Tensor
    weights_B: Tensor
    noise_BZ: Tensor

    @property
    def a_BA(self) -> Tensor:
        """All labels, treatments first."""
        return torch.cat([self.t_BT, self.x_BX], dim=1)

    def __len__(self) -> int:
        return len(self.y_BCHW)

    def split(self, parts: int) -> list["Batch"]:
        """Split the batch into `parts` parts, as even as possible; some may be empty."""
        cut = [values.tensor_split(parts) for values in vars(self).values()]
        return [Batch(*part) for part in zip(*cut, strict=True)]


class TrainingBatches:
    """The training split as batches on a device.

    Args:
        data: the prepared images.
        rows_N: rows of the table to train on.
        x_NX, t_NT, weights_N: covariates, treatments (raw) and weights of those rows.
        batch_size: images per batch, over all processes.
        latent: dimensions of the noise that goes with each image.
        flip: mirror images at random.
        cache: `mmap` reads images as they are needed; `ram` copies them into memory first; `device` copies them and
            their labels into device memory, so that the host only supplies indices and random numbers per batch.
        shuffle: the order, see `civae_core.data.order`.

    Raises:
        CivaeError: the images do not fit into the device's memory.
    """

    def __init__(
        self,
        data: PreparedData,
        rows_N: Tensor,
        x_NX: Tensor,
        t_NT: Tensor,
        weights_N: Tensor,
        *,
        batch_size: int,
        latent: int,
        flip: bool,
        cache: Cache,
        seed: int,
        device: torch.device,
        shuffle: Shuffle = "full",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data, self.rows_N = data, rows_N
        self.x_NX, self.t_NT, self.weights_N = x_NX, t_NT, weights_N
        self.batch_size, self.latent, self.flip = batch_size, latent, flip
        self.seed, self.device = seed, device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.share = slice(rank, None, world_size)
        self.order = make_order(shuffle, len(rows_N), seed)
        # Rows are looked up here: labels are kept on the device of the cached images, and on the CPU with `mmap`.
        self._home = device if cache == "device" else torch.device("cpu")
        self._labels = [labels.to(self._home) for labels in (x_NX, t_NT, weights_N)]
        self._cached = None if cache == "mmap" else _copied(data, rows_N, self._home)

    def at(self, images_seen: int) -> Batch:
        """The batch that follows the first `images_seen` images."""
        items_B = self.order.items(images_seen, self.batch_size)[self.share]
        places_B = self._to(self._home, items_B)
        if self._cached is None:
            pixels_BCHW = self.data.images(self.rows_N[items_B])
        else:
            pixels_BCHW = self._cached.index_select(0, places_B)
        y_BCHW = self._to(self.device, pixels_BCHW).to(torch.float32).div_(255)
        y_BCHW = y_BCHW.to(memory_format=self.memory_format)
        if self.flip:
            draws_B = torch.rand(self.batch_size, generator=generator_for(self.seed, "flip", images_seen))
            flips_B = self._to(self.device, (draws_B < 0.5)[self.share])
            y_BCHW = torch.where(flips_B[:, None, None, None], y_BCHW.flip(3), y_BCHW)
        noise_BZ = torch.randn(
            self.batch_size, self.latent, generator=generator_for(self.seed, "noise", images_seen)
        )
        x_BX, t_BT, weights_B = (
            self._to(self.device, labels.index_select(0, places_B)) for labels in self._labels
        )
        return Batch(y_BCHW, x_BX, t_BT, weights_B, self._to(self.device, noise_BZ[self.share]))

    @staticmethod
    def _to(device: torch.device, values: Tensor) -> Tensor:
        if values.device.type == device.type and device.index in (None, values.device.index):
            return values
        if device.type == "cuda":
            # Copies from pinned memory are asynchronous; torch does not reuse the memory before they are done.
            return values.pin_memory().to(device, non_blocking=True)
        return values.to(device)


def _copied(data: PreparedData, rows_N: Tensor, device: torch.device) -> Tensor:
    """Images of the given rows on a device, uint8 [N,C,S,S], copied piece by piece."""
    pieces = rows_N.split(COPIED_AT_ONCE)
    first = data.images(pieces[0])
    shape = (len(rows_N), *first.shape[1:])
    try:
        copied_NCHW = torch.empty(shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        raise CivaeError(
            f"data.cache device: {math.prod(shape) / 1e9:,.1f} GB of images do not fit into the memory of {device}",
            hint="set data.cache to ram, or to mmap",
        ) from error
    for number, piece in enumerate(pieces):
        start = number * COPIED_AT_ONCE
        copied_NCHW[start : start + len(piece)] = data.images(piece) if number else first
    return copied_NCHW
