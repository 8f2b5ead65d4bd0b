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
    missing = {a.name for a in roles.inputs if any(a.name not in values for values in known)}
    outputs_BA = None
    if missing:
        if model.predictor is None:
            first = next(row for row, values in enumerate(known) if missing - values.keys())
            names = ", ".join(sorted(missing - known[first].keys()))
            raise UsageError(
                f"{pictures[first].name}: {names} not stated, and this model was trained without a predictor",
                hint="state them with --attr NAME=VALUE or --attrs TABLE",
            )
        outputs_BA = model.predictor(y_BCHW)
    columns = []
    predicted: list[dict[str, float | None]] = [{} for _ in pictures]
    for index, attribute in enumerate(roles.inputs):
        column = []
        for row, values in enumerate(known):
            if attribute.name in values:
                column.append(values[attribute.name])
            else:
                assert outputs_BA is not None
                value, probability = _guess(outputs_BA[row, index].item(), attribute)
                column.append(value)
                predicted[row][attribute.name] = probability
        columns.append(torch.tensor(column, dtype=torch.float32))
    a_BA = torch.stack(columns, dim=1).to(y_BCHW.device)
    treatments = len(roles.treatments)
    return Labels(a_BA[:, :treatments], a_BA[:, treatments:], predicted)


def _guess(output: float, attribute: Attribute) -> tuple[float, float | None]:
    """The predictor's output as a value, with the probability of 1 where the attribute is binary."""
    if attribute.kind == "binary":
        probability = torch.sigmoid(torch.tensor(output)).item()
        return float(probability >= 0.5), round(probability, 4)
    shift, scale = attribute.shift_and_scale
    return shift + scale * output, None
