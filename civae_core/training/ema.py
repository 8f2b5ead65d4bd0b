"""Exponential moving average of weights: what is saved, sampled from and evaluated."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(model: Network) -> Network:
    """A frozen copy in evaluation mode, from which the average starts."""
    average = copy.deepcopy(model).eval()
    return average.requires_grad_(False)


class MovingAverage:
    """average ← decay · average + (1 − decay) · model, for two networks of the same kind; buffers are copied.

    Tensors are looked up once, since walking through a small network's modules takes longer than averaging it.
    """

    def __init__(self, average: nn.Module, model: nn.Module) -> None:
        self.averages: list[Tensor] = list(average.parameters())
        self.values: list[Tensor] = list(model.parameters())
        self.buffers, self.new_buffers = list(average.buffers()), list(model.buffers())

    @torch.no_grad()
    def update(self, decay: float) -> None:
        torch._foreach_lerp_(self.averages, self.values, 1 - decay)
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.new_buffers)
