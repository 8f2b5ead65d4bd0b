"""How much labels surprise the network that predicts them: the same nats for critics, guidance and predictor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.attributes import Attribute


class Surprise(nn.Module):
    """−log p(a|·) of each attribute in nats; for continuous attributes up to a constant.

    All columns are computed as both kinds and then chosen from: that takes fewer kernels than one column at a time.

    Args:
        attributes: the A attributes in the columns.
    """

    binary_A: Tensor
    shift_A: Tensor
    scale_A: Tensor

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        super().__init__()
        units = torch.tensor([attribute.shift_and_scale for attribute in attributes]).reshape(-1, 2)
        binary_A = torch.tensor([attribute.kind == "binary" for attribute in attributes], dtype=torch.bool)
        self.register_buffer("binary_A", binary_A, persistent=False)
        self.register_buffer("shift_A", units[:, 0], persistent=False)
        self.register_buffer("scale_A", units[:, 1], persistent=False)

    def forward(self, outputs_BA: Tensor, a_BA: Tensor) -> Tensor:
        """The surprise [B,A] of each label.

        Args:
            outputs_BA: logits of binary attributes, standardised means of continuous ones, whose variance is taken
                as 1.
            a_BA: raw labels, all finite; for a binary attribute, any probability.
        """
        crossed_BA = F.binary_cross_entropy_with_logits(outputs_BA, a_BA, reduction="none")
        squared_BA = 0.5 * (outputs_BA - self.standardise(a_BA)).square()
        return torch.where(self.binary_A, crossed_BA, squared_BA)

    def standardise(self, a_BA: Tensor) -> Tensor:
        """Raw values in the standardised units that networks are given."""
        return (a_BA - self.shift_A) / self.scale_A
