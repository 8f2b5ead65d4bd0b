"""Which attributes a scorer learns, and with which weights, so that it does not read one attribute off another.

In confounded data a scorer learns that old people are men. It would then see a change of Male in every perfect
counterfactual of age, and report a leak that does not exist. So each attribute is learned in a population where it is
independent of the others, as far as overlap and the cap allow, by inverse-propensity weights as in training
(METHOD 4.1).
"""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.balance import training_weights
from civae_core.balance.imbalance import LITTLE_IMBALANCE, MEASURE, imbalance
from civae_core.errors import DataError

log = logging.getLogger(__name__)

FEWEST_OF_A_CLASS = 8


def learnable(table: tuple[Attribute, ...], labels_NA: Tensor) -> list[int]:
    """Columns that vary enough to be learned; logs a warning that names the others.

    Raises:
        DataError: no column varies enough.
    """
    kept: list[int] = []
    dropped: list[int] = []
    for column, attribute in enumerate(table):
        known_M = labels_NA[:, column]
        known_M = known_M[known_M.isfinite()]
        if attribute.kind == "binary":
            varies = min(int((known_M > 0.5).sum()), int((known_M <= 0.5).sum())) >= FEWEST_OF_A_CLASS
        else:
            varies = len(known_M) >= FEWEST_OF_A_CLASS and float(known_M.std()) > 0.0
        (kept if varies else dropped).append(column)
    if dropped:
        log.warning(
            "too few examples to train a scorer of: %s", ", ".join(table[column].name for column in dropped)
        )
    if not kept:
        raise DataError(
            "no attribute of the table varies enough to train a scorer on",
            hint=f"prepare more images: a scorer needs {FEWEST_OF_A_CLASS} of either value of an attribute",
        )
    return kept


def balanced_weights(
    labels_NA: Tensor, attributes: Sequence[Attribute], roles: AttributeRoles, cap: float
) -> Tensor:
    """Training weights [N, A]: mean 1 in each column among labelled rows, 0 where the label is missing.

    Column a holds the stabilised inverse propensities of attribute a given other attributes, descendants excluded:
    given covariates and held-out attributes if a is a treatment, and given the treatments too otherwise. Both classes
    of a binary attribute are then scaled to the same sum, so that a rare class counts.

    Args:
        labels_NA: labels in raw units, NaN where missing.
        attributes: the attributes in the columns.
        cap: largest inverse-propensity weight, as a multiple of the mean weight.
    """
    descendants = {attribute.name for attribute in roles.descendants}
    treatments = {attribute.name for attribute in roles.treatments}
    known_NA = labels_NA.isfinite()
    mean_A = labels_NA.nan_to_num(0.0).sum(0) / known_NA.sum(0).clamp(min=1)
    # A missing label of another attribute carries no information, so filling in the mean does no harm.
    filled_NA = torch.where(known_NA, labels_NA, mean_A)
    weights_NA = torch.zeros_like(labels_NA)
    for column, attribute in enumerate(attributes):
        causes = [
            other
            for other, candidate in enumerate(attributes)
            if other != column
            and candidate.name not in descendants
            and not (attribute.name in treatments and candidate.name in treatments)
        ]
        rows_N = known_NA[:, column]
        x_MC, t_M1 = filled_NA[rows_N][:, causes], labels_NA[rows_N, column][:, None]
        w_M = training_weights(x_MC, t_M1, [attribute.kind], "inverse", cap)
        weights_NA[rows_N, column] = _equal_classes(w_M, t_M1[:, 0]) if attribute.kind == "binary" else w_M
    return weights_NA


def warn_of_association(
    labels_NA: Tensor, weights_NA: Tensor, attributes: Sequence[Attribute], roles: AttributeRoles
) -> None:
    """Warn of the treatment and covariate that stay most associated under the weights, if by more than a little.

    The weights for learning the treatment and those for learning the covariate are both checked, since either can be
    read off the other. The measure is that of `imbalance` for the kind of the learned attribute.

    Args:
        labels_NA: labels in raw units, NaN where missing.
        weights_NA: as returned by `balanced_weights`.
        attributes: the attributes in the columns.
    """
    treatments = {attribute.name for attribute in roles.treatments}
    covariates = {attribute.name for attribute in roles.covariates}
    found: list[tuple[float, str, str, str]] = []
    for a, learned in enumerate(attributes):
        for b, other in enumerate(attributes):
            pair = {learned.name, other.name}
            if not (pair & treatments and pair & covariates):
                continue
            known_N = labels_NA[:, [a, b]].isfinite().all(dim=1)
            label_M, other_M1 = labels_NA[known_N, a].double(), labels_NA[known_N][:, [b]].double()
            if label_M.unique().numel() < 2:
                continue
            (left,) = imbalance(other_M1, label_M, weights_NA[known_N, a].double(), learned.kind)
            found.append(
                (math.inf if left is None else abs(left), learned.name, other.name, MEASURE[learned.kind])
            )
    size, learned_name, other_name, measure = max(found, default=(0.0, "", "", ""))
    if size > LITTLE_IMBALANCE:
        log.warning(
            "in what the scorer learns %s from, it is still associated with %s (weighted %s %.2f): "
            "the scorer may read one off the other",
            learned_name,
            other_name,
            measure,
            size,
        )


def _equal_classes(weights_M: Tensor, labels_M: Tensor) -> Tensor:
    """Scale the weights of both classes to the same sum, so that the scorer cannot ignore a rare class."""
    scaled_M = weights_M.clone()
    for label in (0, 1):
        members_M = (labels_M > 0.5) == bool(label)
        scaled_M[members_M] *= 0.5 * len(weights_M) / weights_M[members_M].sum()
    return scaled_M
