"""Composition and reversibility: interventions that change nothing, and interventions that are undone (METHOD 6).

Each step takes the image that the previous one left, clamped to [0,1] as a file would be, and abducts it anew.
"""

from typing import Any

import torch
from torch import Tensor

from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import SSIM_WINDOW, ssim
from civae_core.evaluation.perceptual import Distance
from civae_core.evaluation.question import Question

CYCLES = {"1": 1, "10": 10}
"""Numbers of rounds after which the distance is taken, by their names in the entries."""
BATCH = 64
MOST_IMAGES = 64
"""Kept small, because ten rounds there and back take twenty counterfactuals of each image."""


def cycle_scores(
    method: TrainedModel,
    data: PreparedData,
    question: Question,
    device: torch.device,
    seed: int,
    lpips: Distance | None = None,
) -> dict[str, Any]:
    """A model's entries `composition` and `reversibility`, each at `noise_0` and `noise_1` (τ = 0 and τ = 1).

    Composition repeats a null intervention; reversibility goes from t to t' and back. `l1_1` and `l1_10` are the mean
    absolute distance from the input after 1 and 10 rounds, in [0,1]; `ssim_1` and `ssim_10` are the structural
    similarity, and `lpips_1` and `lpips_10` the perceptual distance, where its network is available.
    At τ = 1 a null intervention returns the input whatever the model, so that entry is marked `trivial`.
    """
    items = evenly_spread(len(question.chosen), MOST_IMAGES)

    def scores(noise: float, *, there_and_back: bool) -> dict[str, Any]:
        values = _values(method, data, question, items, device, lpips, noise, there_and_back=there_and_back)
        return {name: bootstrap_mean(value_N, seed=seed).to_dict() for name, value_N in values.items()}

    return {
        "composition": {
            "noise_0": scores(0.0, there_and_back=False),
            "noise_1": {**scores(1.0, there_and_back=False), "trivial": True},
        },
        "reversibility": {f"noise_{noise:g}": scores(noise, there_and_back=True) for noise in (0.0, 1.0)},
    }


@torch.no_grad()
def _values(
    method: TrainedModel,
    data: PreparedData,
    question: Question,
    items: Tensor,
    device: torch.device,
    lpips: Distance | None,
    noise: float,
    *,
    there_and_back: bool,
) -> dict[str, Tensor]:
    """Distances [N] between some of the question's images and what the rounds make of them, by measure and rounds."""
    distances: dict[str, Distance] = {"l1": _mean_absolute_error}
    if data.size >= SSIM_WINDOW:
        distances["ssim"] = ssim
    if lpips is not None:
        distances["lpips"] = lpips
    values: dict[str, list[Tensor]] = {}
    for part in items.split(BATCH):
        asked = question.batch(data, part, device)
        y_BCHW = asked.y_BCHW
        for cycle in range(1, max(CYCLES.values()) + 1):
            if there_and_back:
                y_BCHW = _step(method, y_BCHW, asked.x_BX, asked.t_BT, asked.t_new_BT, noise)
                y_BCHW = _step(method, y_BCHW, asked.x_BX, asked.t_new_BT, asked.t_BT, noise)
            else:
                y_BCHW = _step(method, y_BCHW, asked.x_BX, asked.t_BT, asked.t_BT, noise)
            for rounds in (name for name, rounds in CYCLES.items() if rounds == cycle):
                for name, distance in distances.items():
                    values.setdefault(f"{name}_{rounds}", []).append(distance(y_BCHW, asked.y_BCHW).cpu())
    return {name: torch.cat(parts) for name, parts in values.items()}


def _mean_absolute_error(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    return (a_BCHW - b_BCHW).abs().flatten(1).mean(dim=1)


def _step(
    method: TrainedModel, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, t_new_BT: Tensor, noise: float
) -> Tensor:
    model, objective = method.stored.model, method.stored.card.config.objective
    prediction = PREDICTIONS[objective](model, abduct(model, y_BCHW, x_BX, t_BT), t_new_BT, noise=noise)
    return prediction.image_BCHW.clamp(0.0, 1.0)
