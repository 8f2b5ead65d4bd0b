"""Calibration of the attribute predictor: temperatures of logits, and spreads of continuous attributes.

A network that has learned its labels well is overconfident. Dividing its logits by one temperature per attribute,
fitted on images that it was not trained on, corrects this without changing any ranking (temperature scaling: Guo et
al. 2017). For a continuous attribute the network predicts the mean; its spread is the root mean squared error of that
prediction on the same images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from civae_core.attributes import Attribute

if TYPE_CHECKING:
    from torch import Tensor

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature; the lower one multiplies logits by twenty."""
FEWEST_LABELS = 20
"""An attribute with fewer labels keeps the network's own probabilities and has no known spread."""
_HALVINGS = 60


@dataclass(frozen=True)
class Calibration:
    """Fitted calibration by attribute name; outputs of an attribute that is absent are used as they are."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    """For binary attributes: the divisor of the logit."""
    spreads: Mapping[str, float] = field(default_factory=dict)
    """For continuous attributes: root mean square of label − prediction, in raw units."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number of labels on which each attribute was fitted."""
    split: str = ""
    """The split that the labels are from; empty if nothing was fitted."""

    def probabilities(self, outputs_BA: "Tensor", attributes: Sequence[Attribute]) -> "Tensor":
        """Calibrated probabilities of label 1 [B,A], float64 on the CPU; meaningless for continuous attributes."""
        import torch

        return torch.from_numpy(self.probability_of(outputs_BA.detach().cpu().numpy(), attributes))

    def probability_of(self, outputs_BA: np.ndarray, attributes: Sequence[Attribute]) -> np.ndarray:
        """`probabilities` for an array, without torch."""
        heat_A = np.array([self.temperatures.get(a.name, 1.0) for a in attributes], dtype=np.float64)
        # The logistic function, in a form that cannot overflow.
        probability_BA: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * outputs_BA.astype(np.float64) / heat_A)
        return probability_BA

    def to_dict(self) -> dict[str, Any]:
        return {
            "temperatures": dict(self.temperatures),
            "spreads": dict(self.spreads),
            "images": dict(self.images),
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """
        Raises:
            KeyError, TypeError, ValueError, AttributeError: `values` is damaged, or a temperature or spread is not a
                positive number.
        """
        found = {
            key: {str(name): float(value) for name, value in values[key].items()}
            for key in ("temperatures", "spreads")
        }
        for group in found.values():
            for name, value in group.items():
                if not (0.0 < value < math.inf):
                    raise ValueError(f"calibration of {name} is {value}")
        images = {str(name): int(count) for name, count in values["images"].items()}
        return cls(**found, images=images, split=str(values["split"]))


UNCALIBRATED = Calibration()
"""The calibration of a model that had no images to fit it on, or whose file predates calibration."""


def fit_calibration(
    outputs_NA: "Tensor", labels_NA: "Tensor", attributes: Sequence[Attribute], split: str
) -> Calibration:
    """Fit temperatures and spreads to labelled images.

    Args:
        outputs_NA: the predictor's outputs on images that it was not trained on.
        labels_NA: their labels in raw units, NaN where missing.
        attributes: the attributes of the columns.
        split: the split that the images are from, recorded in the result.
    """
    outputs_NA, labels_NA = outputs_NA.detach().cpu().double(), labels_NA.detach().cpu().double()
    temperatures, spreads, images = {}, {}, {}
    for column, attribute in enumerate(attributes):
        known_N = labels_NA[:, column].isfinite() & outputs_NA[:, column].isfinite()
        output_M, label_M = outputs_NA[known_N, column], labels_NA[known_N, column]
        if len(label_M) < FEWEST_LABELS:
            continue
        if attribute.kind == "continuous":
            shift, scale = attribute.shift_and_scale
            spread = float((label_M - shift - scale * output_M).square().mean().sqrt())
            if spread == 0.0:
                continue
            spreads[attribute.name] = spread
        elif 0 < int(label_M.sum()) < len(label_M):
            temperatures[attribute.name] = fit_temperature(output_M, label_M)
        else:
            continue
        images[attribute.name] = len(label_M)
    return Calibration(temperatures, spreads, images, split if images else "")


def fit_temperature(logit_N: "Tensor", label_N: "Tensor") -> float:
    """The temperature that minimises the mean cross-entropy of logits against 0/1 labels, both of which must occur.

    Labels are replaced by Platt's smoothed targets, (n₁+1)/(n₁+2) and 1/(n₀+2): if the network separates the images
    without error, infinite confidence would be optimal otherwise. The loss is convex in 1/T, so bisection finds its
    minimum.
    """
    import torch

    logit_N, label_N = logit_N.double(), label_N.double()
    ones = float(label_N.sum())
    zeros = len(label_N) - ones
    target_N = torch.where(label_N > 0.5, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        slope = float((((middle * logit_N).sigmoid() - target_N) * logit_N).mean())
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / math.sqrt(low * high)
