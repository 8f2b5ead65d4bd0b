"""How much labels surprise the network that predicts them: the same nats for critics, guidance and predictor."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute


def surprises(outputs_BA: Tensor, a_BA: Tensor, attributes: Sequence[Attribute]) -> list[Tensor]:
    """−log p(a|·) of each attribute, [B] each, in nats; for continuous attributes up to a constant.

    Args:
        outputs_BA: logits of binary attributes, standardised means of continuous ones, whose variance is taken as 1.
        a_BA: raw labels; for a binary attribute, any probability.
        attributes: the attributes in the columns.
    """
    columns = []
    for index, attribute in enumerate(attributes):
        output_B, a_B = outputs_BA[:, index], a_BA[:, index]
        if attribute.kind == "binary":
            columns.append(F.binary_cross_entropy_with_logits(output_B, a_B, reduction="none"))
        else:
            columns.append(0.5 * (output_B - standardised(a_B, attribute)).square())
    return columns


def standardised(a_B: Tensor, attribute: Attribute) -> Tensor:
    """Raw values in the standardised units that networks are given."""
    shift, scale = attribute.shift_and_scale
    return (a_B - shift) / scale
