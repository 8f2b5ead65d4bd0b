"""What a model is asked in an evaluation: one intervention, with the true answers where the data knows them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData, Truth
from civae_core.data.labelled import LabelledRows
from civae_core.inference.edit import apply_intervention


@dataclass(frozen=True)
class KnownTruth:
    """True counterfactuals of the chosen rows."""

    truth: Truth
    places_N: Tensor
    """Where each chosen row stands in `truth`."""

    def images(self, items: Tensor | slice) -> Tensor:
        """Floats in [0,1] [n,C,S,S] of some of the chosen rows."""
        return self.truth.images(self.places_N[items]).float() / 255


@dataclass(frozen=True)
class Question:
    """One intervention on the rows of a split."""

    chosen: LabelledRows
    t_new_NT: Tensor
    do: dict[str, float | str]
    truth: KnownTruth | None


def ask(data: PreparedData, roles: AttributeRoles, chosen: LabelledRows) -> Question:
    """The intervention whose truth the data knows, on the rows that have it; else the first treatment flipped (a
    continuous one: set to its largest value in training).
    """
    names = {a.name for a in roles.treatments}
    for truth in data.truth:
        if not set(truth.do) <= names:
            continue
        place = {row: index for index, row in enumerate(truth.rows.tolist())}
        kept_N = torch.tensor([row in place for row in chosen.rows_N.tolist()], dtype=torch.bool)
        if kept_N.any():
            known = chosen[kept_N]
            places_N = torch.tensor([place[row] for row in known.rows_N.tolist()])
            columns = [[a.name for a in data.attributes].index(a.name) for a in roles.treatments]
            t_new_NT = truth.table_MA[places_N][:, columns]
            return Question(known, t_new_NT, truth.do, KnownTruth(truth, places_N))
    first = roles.treatments[0]
    do: dict[str, float | str] = {first.name: "flip" if first.kind == "binary" else first.high}
    return Question(chosen, apply_intervention(chosen.t_NT, do, roles), do, None)  # type: ignore[arg-type]
