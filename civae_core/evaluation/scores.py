"""The scores of methods over held-out images, streamed: one value per image is kept, never the images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.methods import Method, TrainedModel
from civae_core.evaluation.metrics import SSIM_WINDOW, bits_per_dim, psnr, ssim
from civae_core.evaluation.question import Question
from civae_core.evaluation.tally import CounterfactualTally
from civae_core.progress import progress
from civae_core.randomness import generator_for

BATCH = 64


def reconstruction_scores(
    methods: Sequence[TrainedModel], data: PreparedData, chosen: LabelledRows, device: torch.device, seed: int
) -> dict[str, dict[str, Any]]:
    """PSNR and SSIM of each method's reconstruction (τ = 0) and bits per dimension, with intervals."""
    found: dict[str, dict[str, list[Tensor]]] = {method.name: {} for method in methods}
    with progress("evaluate reconstructions", len(chosen)) as bar:
        for start in range(0, len(chosen), BATCH):
            y_BCHW, x_BX, t_BT = chosen[start : start + BATCH].read(data, device)
            for method in methods:
                model = method.stored.model
                noise_BZ = torch.randn(
                    len(y_BCHW), model.latent, generator=generator_for(seed, "evaluate", start)
                ).to(device)
                mean_BCHW = method.reconstruct(y_BCHW, x_BX, t_BT).clamp(0, 1)
                nats_B = method.negative_elbo(y_BCHW, x_BX, t_BT, noise_BZ)
                values = {
                    "psnr_reconstruction": psnr(mean_BCHW, y_BCHW),
                    "bits_per_dim": bits_per_dim(nats_B, y_BCHW[0].numel()),
                }
                if data.size >= SSIM_WINDOW:
                    values["ssim_reconstruction"] = ssim(mean_BCHW, y_BCHW)
                for name, values_B in values.items():
                    found[method.name].setdefault(name, []).append(values_B.cpu())
            bar.advance(len(y_BCHW))
    return {
        name: {key: bootstrap_mean(torch.cat(parts), seed=seed).to_dict() for key, parts in values.items()}
        for name, values in found.items()
    }


def counterfactual_scores(
    methods: Sequence[Method],
    data: PreparedData,
    question: Question,
    device: torch.device,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each method's errors against the truth, at τ = 1 and, for the relative effect error, also at τ = 0."""
    assert question.truth is not None
    tallies = {method.name: CounterfactualTally() for method in methods}
    with progress("evaluate counterfactuals", len(question.chosen)) as bar:
        for start in range(0, len(question.chosen), BATCH):
            rows = slice(start, start + BATCH)
            y_BCHW, x_BX, t_BT = question.chosen[rows].read(data, device)
            truth_BCHW = question.truth.images(rows).to(device)
            t_new_BT = question.t_new_NT[rows].to(device)
            direction_B = _direction(t_BT, t_new_BT)
            for method in methods:
                answer = method.answer(y_BCHW, x_BX, t_BT, t_new_BT)
                tallies[method.name].add(
                    y_BCHW, answer.with_noise_BCHW, truth_BCHW, answer.mean_BCHW, direction_B
                )
            bar.advance(len(y_BCHW))
    return {name: tally.summary(seed) for name, tally in tallies.items()}


def _direction(t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
    """+1 or −1 [B] by whether the first treatment that changes rises or falls, 0 where none changes."""
    step_BT = (t_new_BT - t_BT).sign()
    first_B1 = (step_BT != 0).int().argmax(dim=1, keepdim=True)
    return step_BT.gather(1, first_B1)[:, 0]
