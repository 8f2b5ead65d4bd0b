"""Batches of a training run, as a pure function of how many images it has seen.

Nothing here has a state that a checkpoint would have to keep: the order of images, the flips and the noise all
follow from the seed and the position. A process of a distributed run takes every world-th image of the common
batch, so the sequence of images does not depend on the number of processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.data.prepared import PreparedData
from civae_core.randomness import generator_for


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


class ShuffledOrder:
    """An endless order of `count` items: each epoch a fresh permutation, position → item."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epochs: dict[int, Tensor] = {}

    def items(self, start: int, length: int) -> Tensor:
        """Items at positions start … start + length − 1, int64 [length]."""
        parts = []
        position, end = start, start + length
        while position < end:
            epoch, offset = divmod(position, self.count)
            taken = min(end - position, self.count - offset)
            parts.append(self._permutation(epoch)[offset : offset + taken])
            position += taken
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = generator_for(self.seed, "order", epoch)
            recent = {e: p for e, p in self._epochs.items() if e == epoch - 1}
            self._epochs = {**recent, epoch: torch.randperm(self.count, generator=generator)}
        return self._epochs[epoch]


class TrainingBatches:
    """The training split as batches on a device.

    Args:
        data: the prepared images.
        rows_N: rows of the table to train on.
        x_NX, t_NT, weights_N: covariates, treatments (raw) and weights of those rows.
        batch_size: images in a batch over all processes.
        latent: dimensions of the noise that goes with each image.
        flip: mirror images at random.
        cache: `ram` copies the rows into memory first, `mmap` reads them as needed.
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
        cache: str,
        seed: int,
        device: torch.device,
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
        self.order = ShuffledOrder(len(rows_N), seed)
        self._cached = data.images(rows_N) if cache == "ram" else None

    def at(self, images_seen: int) -> Batch:
        """The batch that follows after `images_seen` images."""
        items_B = self.order.items(images_seen, self.batch_size)[self.share]
        pixels_BCHW = (
            self.data.images(self.rows_N[items_B]) if self._cached is None else self._cached[items_B]
        )
        y_BCHW = self._to_device(pixels_BCHW).to(torch.float32).div_(255)
        y_BCHW = y_BCHW.to(memory_format=self.memory_format)
        if self.flip:
            draws_B = torch.rand(self.batch_size, generator=generator_for(self.seed, "flip", images_seen))
            flips_B = self._to_device((draws_B < 0.5)[self.share])
            y_BCHW = torch.where(flips_B[:, None, None, None], y_BCHW.flip(3), y_BCHW)
        noise_BZ = torch.randn(
            self.batch_size, self.latent, generator=generator_for(self.seed, "noise", images_seen)
        )
        return Batch(
            y_BCHW,
            self._to_device(self.x_NX[items_B]),
            self._to_device(self.t_NT[items_B]),
            self._to_device(self.weights_N[items_B]),
            self._to_device(noise_BZ[self.share]),
        )

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)
