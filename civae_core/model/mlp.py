"""A small multilayer perceptron, used by the prior and by the critics of training."""

from torch import nn


def mlp(inputs: int, hidden: int, outputs: int, *, zero: bool = True) -> nn.Sequential:
    """An MLP with two hidden SiLU layers; its last layer is initialised to zero unless `zero` is False."""
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
