"""Call a network with its weights held fixed: gradients pass through to its inputs but do not reach its weights."""

from torch import Tensor, nn
from torch.func import functional_call


def call_frozen(network: nn.Module, *inputs: Tensor) -> Tensor:
    """`network(*inputs)`, with its parameters treated as constants."""
    fixed = {name: parameter.detach() for name, parameter in network.named_parameters()}
    output: Tensor = functional_call(network, fixed, inputs)
    return output
