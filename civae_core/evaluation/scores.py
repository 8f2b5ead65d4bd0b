"""Scores of methods over held-out images, computed in one pass: one value per image is kept, never the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.evaluation.asked import Method, Tally, look
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import SSIM_WINDOW, bits_per_dim, ms_ssim, psnr, ssim
from civae_core.evaluation.perceptual import Distance
from civae_core.evaluation.question import Question
from civae_core.progress import progress
from civae_core.randomness import generator_for
from civae_core.yardstick import Yardstick

BATCH = 64


@dataclass(frozen=True)
class Scored:
    """One method's entries in the evaluation, and the per-image values behind them."""

    entries: dict[str, Any]
    per_image: dict[str, Tensor]

    @classmethod
    def of(cls, tallies: Sequence[Tally], seed: int) -> "Scored":
        entries: dict[str, Any] = {}
        per_image: dict[str, Tensor] = {}
        for tally in tallies:
            entries |= tally.summary(seed)
            per_image |= tally.per_image()
        return cls(entries, per_image)


def reconstruction_scores(
    method: TrainedModel,
    data: PreparedData,
    chosen: LabelledRows,
    device: torch.device,
    seed: int,
    lpips: Distance | None = None,
) -> dict[str, Any]:
    """PSNR, SSIM, MS-SSIM and LPIPS of a model's reconstructions (τ = 0), and bits per dimension, with intervals."""
    found: dict[str, KeptRows] = {}
    with progress(f"evaluate reconstructions of {method.name}", len(chosen)) as bar:
        for start in range(0, len(chosen), BATCH):
            y_BCHW, x_BX, t_BT = chosen[start : start + BATCH].read(data, device)
            generator = generator_for(seed, "evaluate", start)
            noise_BZ = torch.randn(len(y_BCHW), method.stored.model.latent, generator=generator).to(device)
            mean_BCHW = method.reconstruct(y_BCHW, x_BX, t_BT).clamp(0, 1)
            nats_B = method.negative_elbo(y_BCHW, x_BX, t_BT, noise_BZ)
            values = {
                "psnr_reconstruction": psnr(mean_BCHW, y_BCHW),
                "bits_per_dim": bits_per_dim(nats_B, y_BCHW[0].numel()),
            }
            if data.size >= SSIM_WINDOW:
                values["ssim_reconstruction"] = ssim(mean_BCHW, y_BCHW)
                values["ms_ssim_reconstruction"] = ms_ssim(mean_BCHW, y_BCHW)
            if lpips is not None:
                values["lpips_reconstruction"] = lpips(mean_BCHW, y_BCHW)
            for name, values_B in values.items():
                found.setdefault(name, KeptRows()).add(values_B)
            bar.advance(len(y_BCHW))
    return {key: bootstrap_mean(kept.all, seed=seed).to_dict() for key, kept in found.items()}


def counterfactual_scores(
    methods: Sequence[Method],
    data: PreparedData,
    question: Question,
    make_tallies: Callable[[], Sequence[Tally]],
    *,
    yardstick: Yardstick | None,
    device: torch.device,
    seed: int,
) -> dict[str, Scored]:
    """Ask each method for its counterfactuals once, and pass them to all its tallies.

    Args:
        make_tallies: makes the tallies of one method; called once for each.
        yardstick: reads images and answers for the tallies that need its readings.
        device: the device of images and models.
        seed: seeds the bootstrap.
    """
    tallies = {method.name: list(make_tallies()) for method in methods}
    with progress("evaluate counterfactuals", len(question.chosen)) as bar:
        for start in range(0, len(question.chosen), BATCH):
            asked = question.batch(data, slice(start, start + BATCH), device, yardstick)
            for method in methods:
                answer = method.answer(asked)
                seen = look(yardstick, answer)
                for tally in tallies[method.name]:
                    tally.add(asked, answer, seen)
            bar.advance(len(asked.y_BCHW))
    return {name: Scored.of(kept, seed) for name, kept in tallies.items()}
