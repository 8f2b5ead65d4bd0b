"""The factual attributes of a picture: stated by the user, found in a table, or predicted from the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.errors import UsageError
from civae_core.inference.pictures import Picture
from civae_core.model import IntactVAE


@dataclass(frozen=True)
class Labels:
    """Factual values of a batch in raw units, and where they come from."""

    t_BT: Tensor
    x_BX: Tensor
    predicted: list[dict[str, float | None]]
    """For each picture, the attributes that were predicted: the probability of the value 1, None if continuous."""

    def factual(self, row: int, roles: AttributeRoles) -> dict[str, float]:
        """Values by name of one picture, treatments first."""
        values = torch.cat([self.t_BT[row], self.x_BX[row]]).tolist()
        return {a.name: round(value, 6) for a, value in zip(roles.inputs, values, strict=True)}


@torch.no_grad()
def fill_labels(
    model: IntactVAE,
    roles: AttributeRoles,
    y_BCHW: Tensor,
    pictures: Sequence[Picture],
    stated: Mapping[str, float],
) -> Labels:
    """Stated values win over a table's, and those over the predictor's.

    Args:
        y_BCHW: the pictures as floats in [0,1] on the model's device.
        stated: values that hold for every picture.

    Raises:
        UsageError: a value is known to nobody and the model has no predictor.
    """
    known = [{**picture.known, **stated} for picture in pictures]
    named = [[values.get(a.name, torch.nan) for a in roles.inputs] for values in known]
    a_BA = torch.tensor(named, dtype=torch.float32).reshape(len(pictures), len(roles.inputs))
    missing_BA = a_BA.isnan()
    predicted: list[dict[str, float | None]] = [{} for _ in pictures]
    if missing_BA.any():
        if model.predictor is None:
            row = int(missing_BA.any(dim=1).nonzero()[0])
            names = ", ".join(sorted(a.name for a in roles.inputs if a.name not in known[row]))
            raise UsageError(
                f"{pictures[row].name}: {names} not stated, and this model was trained without a predictor",
                hint="state them with --attr NAME=VALUE or --attrs TABLE",
            )
        guesses_BA, probabilities_BA = _guess(model.predictor(y_BCHW).float().cpu(), roles.inputs)
        a_BA = torch.where(missing_BA, guesses_BA, a_BA)
        probabilities = probabilities_BA.tolist()
        for row, index in missing_BA.nonzero().tolist():
            attribute = roles.inputs[index]
            binary = attribute.kind == "binary"
            predicted[row][attribute.name] = round(probabilities[row][index], 4) if binary else None
    t_BT, x_BX = a_BA.to(y_BCHW.device).tensor_split([len(roles.treatments)], dim=1)
    return Labels(t_BT, x_BX, predicted)


def _guess(outputs_BA: Tensor, attributes: Sequence[Attribute]) -> tuple[Tensor, Tensor]:
    """The predictor's outputs as values in raw units [B,A], and as probabilities of 1 where they are logits [B,A]."""
    binary_A = torch.tensor([a.kind == "binary" for a in attributes])
    shift_A, scale_A = torch.tensor([a.shift_and_scale for a in attributes], dtype=torch.float64).T
    probabilities_BA = outputs_BA.sigmoid()
    continuous_BA = (shift_A + scale_A * outputs_BA).float()
    return torch.where(binary_A, (probabilities_BA >= 0.5).float(), continuous_BA), probabilities_BA
