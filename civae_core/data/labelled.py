"""Rows of prepared data with known labels, as the treatments and covariates of a question.

A row that lacks a treatment or covariate is not used to learn or report effects: a value guessed from the image
would be a function of the image, and the treatment's effect would be read off the guess. The labels that such a row
does have still train the attribute predictor (METHOD 3); `partly_labelled_rows` returns these rows.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data.prepared import PreparedData
from civae_core.data.splits import SPLITS, Split
from civae_core.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledRows:
    """Rows of the table with their covariates and treatments in raw units, NaN where a label is missing."""

    rows_N: Tensor
    x_NX: Tensor
    t_NT: Tensor

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, items: Tensor | slice) -> "LabelledRows":
        return LabelledRows(self.rows_N[items], self.x_NX[items], self.t_NT[items])

    def read(self, data: PreparedData, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Load all rows onto a device: images as floats in [0,1] [N,C,S,S], covariates [N,X], treatments [N,T]."""
        y_NCHW = data.images(self.rows_N).to(device).float() / 255
        return y_NCHW, self.x_NX.to(device), self.t_NT.to(device)


def labelled_rows(
    data: PreparedData, roles: AttributeRoles, split: Split, *, warn: bool = True
) -> LabelledRows:
    """The split's rows with all treatments and covariates known; with `warn`, log how many were left out.

    Raises:
        DataError: no row is left.
    """
    found, missing_NA = _all_rows(data, roles, split)
    known_N = ~missing_NA.any(dim=1)
    if not known_N.any():
        raise DataError(
            f"{data.path}: the {split} split has no image whose treatment and covariates are all known",
            hint="see the data's report.html, or prepare the data with other splits",
        )
    missing = int((~known_N).sum())
    if missing and warn:
        log.warning("%s: %d images of the %s split lack a label and are left out", data.path, missing, split)
    return found[known_N]


def labelled_splits(data: PreparedData, roles: AttributeRoles) -> list[Split]:
    """The splits in which some row has all treatments and covariates known."""
    return [split for split in SPLITS if not _all_rows(data, roles, split)[1].any(dim=1).all()]


def partly_labelled_rows(data: PreparedData, roles: AttributeRoles, split: Split) -> LabelledRows:
    """The split's rows with some, but not all, of the treatments and covariates known; may be empty."""
    found, missing_NA = _all_rows(data, roles, split)
    return found[missing_NA.any(dim=1) & ~missing_NA.all(dim=1)]


def rows_with_labels(data: PreparedData, roles: AttributeRoles, split: Split) -> LabelledRows:
    """The split's rows with at least one of the treatments and covariates known; may be empty."""
    found, missing_NA = _all_rows(data, roles, split)
    return found[~missing_NA.all(dim=1)]


def labels_of(attributes: Sequence[Attribute], data: PreparedData) -> Tensor:
    """Labels [N,A] of all rows in raw units, NaN where missing.

    They are also missing where the table lacks the attribute, or has it as another kind, in other units.
    """
    kinds = {attribute.name: attribute.kind for attribute in data.attributes}
    known = [column for column, a in enumerate(attributes) if kinds.get(a.name) == a.kind]
    labels_NA = torch.full((len(data.table_NA), len(attributes)), torch.nan)
    labels_NA[:, known] = data.columns([attributes[column].name for column in known])
    return labels_NA


def evenly_spread(count: int, limit: int) -> Tensor:
    """At most `limit` evenly spaced indices of 0 … count − 1, int64; two or more include both ends."""
    # float32 could round indices near 17 million to one past the last.
    return torch.linspace(0, count - 1, min(limit, count), dtype=torch.float64).round().long()


def _all_rows(data: PreparedData, roles: AttributeRoles, split: Split) -> tuple[LabelledRows, Tensor]:
    """The split's rows, and which of their labels are missing [N,A], treatments first."""
    rows_N = data.rows(split)
    x_NX = data.columns([a.name for a in roles.covariates])[rows_N]
    t_NT = data.columns([a.name for a in roles.treatments])[rows_N]
    return LabelledRows(rows_N, x_NX, t_NT), torch.cat([t_NT, x_NX], dim=1).isnan()
