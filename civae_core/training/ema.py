"""Exponential moving average of weights: what is saved, sampled from and evaluated."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(model: Network) -> Network:
    """A frozen copy in evaluation mode, the start of the average."""
    average = copy.deepcopy(model).eval()
    return average.requires_grad_(False)


class MovingAverage:
    """average ← decay · average + (1 − decay) · model, for two networks of one kind; buffers are copied.

    Their tensors are looked up once: walking a network's modules takes longer than small ones take to average.
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
