"""Whether the model's attribute predictor means its probabilities, on held-out images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.figures.calibration import Reliability
from civae_core.model import IntactVAE

BATCH = 64
BINS = 10
_Z = 1.959964
"""Half width of a 95 % interval, in standard deviations."""


def reliability(name: str, probability_N: Tensor, label_N: Tensor, bins: int = BINS) -> Reliability:
    """Predictions of one binary attribute against what is so, in bins of equal width; 1 counts to the last bin.

    Args:
        probability_N: predicted probabilities of 1.
        label_N: 0 or 1.

    Raises:
        ValueError: no images.
    """
    if not len(label_N):
        raise ValueError(f"calibration of {name} needs at least one image")
    probability_N, label_N = probability_N.detach().cpu().double(), label_N.detach().cpu().double()
    # Upper edges are part of the bin above, as in numpy's digitize; only the last bin is closed.
    edges = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64)
    bin_N = torch.bucketize(probability_N, edges[1:-1], right=True)
    count_K = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_N, torch.ones_like(label_N))
    kept = count_K > 0
    confidence_K = torch.zeros_like(count_K).index_add_(0, bin_N, probability_N)[kept] / count_K[kept]
    frequency_K = torch.zeros_like(count_K).index_add_(0, bin_N, label_N)[kept] / count_K[kept]
    count_K = count_K[kept]
    return Reliability(
        name=name,
        centre_K=((edges[1:] + edges[:-1]) / 2)[kept].tolist(),
        confidence_K=confidence_K.tolist(),
        frequency_K=frequency_K.tolist(),
        interval_K=[
            wilson_interval(f, n) for f, n in zip(frequency_K.tolist(), count_K.tolist(), strict=True)
        ],
        count_K=[int(n) for n in count_K.tolist()],
        error=float((count_K * (frequency_K - confidence_K).abs()).sum() / count_K.sum()),
    )


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share observed in `count` cases; sensible at shares 0 and 1 too."""
    shrink = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / shrink
    half = _Z / shrink * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


@torch.no_grad()
def predicted_probabilities(
    model: IntactVAE, data: PreparedData, chosen: LabelledRows, device: torch.device
) -> Tensor:
    """The predictor's probabilities of 1 [N, A], treatments first; meaningless where an attribute is continuous.

    Raises:
        ValueError: the model has no predictor.
    """
    if model.predictor is None:
        raise ValueError("the model has no attribute predictor")
    parts = [
        model.predictor(chosen[start : start + BATCH].read(data, device)[0]).float().sigmoid().cpu()
        for start in range(0, len(chosen), BATCH)
    ]
    return torch.cat(parts)


def calibration(
    model: IntactVAE,
    attributes: Sequence[Attribute],
    data: PreparedData,
    chosen: LabelledRows,
    device: torch.device,
) -> list[Reliability]:
    """Reliability of each binary input; none if the model has no predictor.

    Args:
        attributes: the model's inputs, treatments first.
        chosen: held-out rows with all their labels.
    """
    if model.predictor is None or not any(a.kind == "binary" for a in attributes):
        return []
    probability_NA = predicted_probabilities(model, data, chosen, device)
    label_NA = torch.cat([chosen.t_NT, chosen.x_NX], dim=1)
    return [
        reliability(a.name, probability_NA[:, i], label_NA[:, i])
        for i, a in enumerate(attributes)
        if a.kind == "binary"
    ]
