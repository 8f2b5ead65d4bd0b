"""A small network over vectors: the prior's, and the critics' of training."""

from torch import nn


def mlp(inputs: int, hidden: int, outputs: int, *, zero: bool = True) -> nn.Sequential:
    """Two hidden layers with SiLU, and a last one that is zero at the start unless told otherwise."""
    last = nn.Linear(hidden, outputs)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        last,
    )
