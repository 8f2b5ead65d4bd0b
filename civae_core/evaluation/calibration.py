"""How accurate the model's attribute predictor is, and how well its probabilities are calibrated."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.evaluation.bootstrap import HALF_WIDTH, wilson_interval
from civae_core.evaluation.kept import KeptRows
from civae_core.figures.calibration import Reliability
from civae_core.inference.plausible import SURE
from civae_core.model import IntactVAE
from civae_core.model.calibrated import UNCALIBRATED, Calibration
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for
from civae_core.yardstick.quality import score_quality

BATCH = 64
BINS = 10
CHANCE_DRAWS = 200


def reliability(name: str, probability_N: Tensor, label_N: Tensor, bins: int = BINS) -> Reliability:
    """Compare predictions of one binary attribute with its labels, in bins of equal width; 1 is in the last bin.

    Args:
        probability_N: predicted probabilities of 1.
        label_N: 0 or 1.

    Raises:
        ValueError: there are no images.
    """
    if not len(label_N):
        raise ValueError(f"calibration of {name} needs at least one image")
    probability_N, label_N = probability_N.detach().cpu().double(), label_N.detach().cpu().double()
    bin_N = _bin_of(probability_N, bins)
    edges = _edges(bins)
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


def _edges(bins: int) -> Tensor:
    return torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64)


def _bin_of(probability_N: Tensor, bins: int = BINS) -> Tensor:
    """Bin indices. An upper edge is part of the bin above, as in numpy's digitize; only the last bin is closed."""
    return torch.bucketize(probability_N.contiguous(), _edges(bins)[1:-1], right=True)


@torch.no_grad()
def predicted_outputs(
    model: IntactVAE, data: PreparedData, chosen: LabelledRows, device: torch.device
) -> Tensor:
    """The predictor's outputs [N, A] on the CPU, treatments first: logits, or standardised means if continuous.

    Raises:
        ValueError: the model has no predictor.
    """
    if model.predictor is None:
        raise ValueError("the model has no attribute predictor")
    kept = KeptRows()
    for start in range(0, len(chosen), BATCH):
        kept.add(model.predictor(chosen[start : start + BATCH].read(data, device)[0]))
    return kept.all


def predictor_quality(
    stored: StoredModel, data: PreparedData, chosen: LabelledRows, device: torch.device
) -> dict[str, dict[str, Any]]:
    """How well a model's predictor predicts each input of the model; empty if it has no predictor.

    Args:
        chosen: held-out rows, which may lack labels; an attribute without any label is absent from the result.

    Returns:
        For each attribute, what `score_quality` returns; `nll`, the mean −log p(label); and `nll_uncalibrated`, the
        same without the calibration in the model's card. For a binary attribute also `ece`, `ece_uncalibrated` and
        `ece_by_chance`, the value expected by chance; `temperature`; and `unsure`, the share of images whose likelier
        value has a probability below `SURE`. For a continuous attribute whose spread is in the card, also `sd`, in
        raw units like `mae`, and `within_95`, the share of labels within ±1.96 sd.
    """
    if stored.model.predictor is None:
        return {}
    attributes, card = stored.card.roles.inputs, stored.card.calibration
    outputs_NA = predicted_outputs(stored.model, data, chosen, device).double()
    labels_NA = torch.cat([chosen.t_NT, chosen.x_NX], dim=1).double()
    found: dict[str, dict[str, Any]] = {}
    for column, attribute in enumerate(attributes):
        known_N = labels_NA[:, column].isfinite()
        output_M1, label_M1 = outputs_NA[known_N, column, None], labels_NA[known_N, column, None]
        if len(label_M1):
            quality = score_quality(output_M1, label_M1, [attribute])[attribute.name]
            judge = _of_quantity if attribute.kind == "continuous" else _of_binary
            found[attribute.name] = quality | judge(output_M1, label_M1, attribute, card)
    return found


def _of_binary(
    output_M1: Tensor, label_M1: Tensor, attribute: Attribute, card: Calibration
) -> dict[str, float]:
    found: dict[str, float] = {"temperature": card.temperatures.get(attribute.name, 1.0)}
    for key, readings in (("", card), ("_uncalibrated", UNCALIBRATED)):
        probability_M1 = readings.probabilities(output_M1, [attribute])
        found[f"ece{key}"] = reliability(attribute.name, probability_M1[:, 0], label_M1[:, 0]).error
        logit_M1 = output_M1 / readings.temperatures.get(attribute.name, 1.0)
        found[f"nll{key}"] = float(F.binary_cross_entropy_with_logits(logit_M1, label_M1))
        if readings is card:
            found["ece_by_chance"] = ece_by_chance(probability_M1[:, 0])
            likelier_M1 = torch.maximum(probability_M1, 1 - probability_M1)
            found["unsure"] = float((likelier_M1 < SURE).double().mean())
    return found


def ece_by_chance(probability_N: Tensor, draws: int = CHANCE_DRAWS) -> float:
    """The expected calibration error of perfectly calibrated probabilities: its mean over labels drawn from them.

    It is above 0, and an error near it is no sign of miscalibration (Bröcker & Smith 2007).
    """
    generator = generator_for(0, "calibration error by chance")
    bin_N = _bin_of(probability_N)

    def error() -> float:
        uniform_N = torch.rand(len(probability_N), generator=generator, dtype=torch.float64)
        label_N = (uniform_N < probability_N).double()
        gap_K = probability_N.new_zeros(BINS).index_add_(0, bin_N, label_N - probability_N)
        return float(gap_K.abs().sum() / len(label_N))

    # One draw after another: all at once would take 1.6 kB per image.
    return sum(error() for _ in range(draws)) / draws


def _of_quantity(
    output_M1: Tensor, label_M1: Tensor, attribute: Attribute, card: Calibration
) -> dict[str, float]:
    shift, scale = attribute.shift_and_scale
    error_M1 = label_M1 - shift - scale * output_M1

    def nll(sd: float) -> float:
        return float((0.5 * (error_M1 / sd).square() + math.log(sd) + 0.5 * math.log(2 * math.pi)).mean())

    # Training takes the variance of a standardised quantity as 1; without a spread, that is what is predicted.
    found = {"nll_uncalibrated": nll(scale)}
    sd = card.spreads.get(attribute.name)
    if sd is None:
        return found | {"nll": found["nll_uncalibrated"]}
    return found | {
        "nll": nll(sd),
        "sd": sd,
        "within_95": float((error_M1.abs() <= HALF_WIDTH * sd).double().mean()),
    }


def calibration(
    model: IntactVAE,
    attributes: Sequence[Attribute],
    data: PreparedData,
    chosen: LabelledRows,
    device: torch.device,
    readings: Calibration = UNCALIBRATED,
) -> list[Reliability]:
    """Reliability of the predictor for each binary input; empty if the model has no predictor.

    Args:
        attributes: the model's inputs, treatments first.
        chosen: held-out rows with all their labels.
        readings: the calibration in the model's card.
    """
    if model.predictor is None or not any(a.kind == "binary" for a in attributes):
        return []
    probability_NA = readings.probabilities(predicted_outputs(model, data, chosen, device), attributes)
    label_NA = torch.cat([chosen.t_NT, chosen.x_NX], dim=1)
    return [
        reliability(a.name, probability_NA[:, i], label_NA[:, i])
        for i, a in enumerate(attributes)
        if a.kind == "binary"
    ]
