"""How well a scorer predicts each attribute, on any set of images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.ranking import auc
from civae_core.yardstick.instrument import Quality

SMALLEST_GROUP = 8
"""Groups with fewer images do not count towards the worst-group accuracy."""


def score_quality(
    outputs_NA: Tensor, labels_NA: Tensor, attributes: Sequence[Attribute], arms_N: Tensor | None = None
) -> Quality:
    """Compare a scorer's outputs with the labels.

    Args:
        outputs_NA: logits, or standardised values, as in `Reading.outputs_BA`.
        labels_NA: labels in raw units, NaN where missing, in the same columns.
        attributes: the attributes in the columns.
        arms_N: the treatment that splits the images into groups, NaN where missing; if None, a group is all images of
            one label.

    Returns:
        Scores by attribute. If it is binary: accuracy, auc (absent if a class is missing), worst_group_accuracy (the
        lowest accuracy in any group of at least 8 images with one label in one arm) and n. If it is continuous: r2,
        mae in raw units, and n. Attributes without any label are absent.
    """
    outputs_NA, labels_NA = outputs_NA.cpu().double(), labels_NA.cpu().double()
    found: Quality = {}
    for column, attribute in enumerate(attributes):
        known_N = labels_NA[:, column].isfinite()
        if known_N.any():
            output_M, label_M = outputs_NA[known_N, column], labels_NA[known_N, column]
            if attribute.kind == "continuous":
                found[attribute.name] = _continuous(output_M, label_M, attribute)
            else:
                arm_M = torch.zeros_like(label_M) if arms_N is None else arms_N.cpu()[known_N]
                found[attribute.name] = _binary(output_M, label_M, arm_M)
    return found


def _binary(output_M: Tensor, label_M: Tensor, arm_M: Tensor) -> dict[str, float]:
    right_M = ((output_M > 0) == (label_M > 0.5)).double()
    found = {"accuracy": float(right_M.mean()), "n": len(label_M)}
    if 0 < int(label_M.sum()) < len(label_M):
        found["auc"] = auc(output_M, label_M)
    groups = [
        right_M[(label_M == label) & (arm_M == arm)]
        for label in (0, 1)
        for arm in arm_M[arm_M.isfinite()].unique()
    ]
    accuracies = [float(group.mean()) for group in groups if len(group) >= SMALLEST_GROUP]
    if accuracies:
        found["worst_group_accuracy"] = min(accuracies)
    return found


def _continuous(output_M: Tensor, label_M: Tensor, attribute: Attribute) -> dict[str, float]:
    shift, scale = attribute.shift_and_scale
    error_M = output_M * scale + shift - label_M
    spread = float((label_M - label_M.mean()).square().sum())
    found = {"mae": float(error_M.abs().mean()), "n": len(label_M)}
    if spread > 0.0:
        found["r2"] = 1.0 - float(error_M.square().sum()) / spread
    return found
