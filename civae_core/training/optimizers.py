"""PyTorch's optimisers, with bit-identical results but without loading PyTorch's compiler.

PyTorch's own optimisers guard against being compiled, and load the compiler for that. No training here compiles them,
and loading takes another two thirds of the time of `import torch`, before the first step.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


def _unguarded(step: Callable[..., Any]) -> Callable[..., Any]:
    return torch.no_grad()(inspect.unwrap(step))


class Adam(torch.optim.Adam):
    add_param_group = _add_param_group
    zero_grad = _zero_grad
    step = _unguarded(torch.optim.Adam.step)


class AdamW(torch.optim.AdamW):
    add_param_group = _add_param_group
    zero_grad = _zero_grad
    step = _unguarded(torch.optim.AdamW.step)
