"""Rows of prepared data whose attributes are known, with those attributes in the roles of a question."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data.prepared import PreparedData
from civae_core.data.splits import Split
from civae_core.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledRows:
    """Rows of the table with their covariates and treatments in raw units."""

    rows_N: Tensor
    x_NX: Tensor
    t_NT: Tensor

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, items: Tensor | slice) -> "LabelledRows":
        return LabelledRows(self.rows_N[items], self.x_NX[items], self.t_NT[items])

    def read(self, data: PreparedData, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """All of them on a device: images as floats in [0,1] [N,C,S,S], covariates [N,X], treatments [N,T]."""
        y_NCHW = data.images(self.rows_N).to(device).float() / 255
        return y_NCHW, self.x_NX.to(device), self.t_NT.to(device)


def labelled_rows(data: PreparedData, roles: AttributeRoles, split: Split) -> LabelledRows:
    """The split's rows without a missing treatment or covariate; says how many were left out.

    Raises:
        DataError: none is left.
    """
    rows_N = data.rows(split)
    x_NX = _columns(data, [a.name for a in roles.covariates])[rows_N]
    t_NT = _columns(data, [a.name for a in roles.treatments])[rows_N]
    known_N = ~torch.isnan(torch.cat([x_NX, t_NT], dim=1)).any(dim=1)
    if not known_N.any():
        raise DataError(
            f"{data.path}: the {split} split has no image whose treatment and covariates are all known",
            hint="see the data's report.html, or prepare it with other splits",
        )
    missing = int((~known_N).sum())
    if missing:
        log.warning("%s: %d images of the %s split lack a label and are left out", data.path, missing, split)
    return LabelledRows(rows_N, x_NX, t_NT)[known_N]


def evenly_spread(count: int, limit: int) -> Tensor:
    """At most `limit` of the indices 0 … count − 1, both ends included where there are two: int64."""
    return torch.linspace(0, count - 1, min(limit, count)).round().long()


def _columns(data: PreparedData, names: list[str]) -> Tensor:
    if not names:
        return torch.zeros(len(data.table_NA), 0)
    return torch.stack([data.column(name) for name in names], dim=1)
