"""Streaming scores: batches go in, and the evaluation's entries for one method come out.

Only one value per image and metric is kept, never the images themselves.
"""

import math
from typing import Any

import torch
from torch import Tensor

from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.bootstrap import bootstrap_mean, bootstrap_ratio
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.metrics import SSIM_WINDOW, effect_terms, ms_ssim, mse, psnr, ssim
from civae_core.evaluation.perceptual import Distance


class CounterfactualTally:
    """Collects errors of counterfactuals with a known truth, at τ = 1; the relative effect error also at τ = 0."""

    def __init__(self, lpips: Distance | None = None) -> None:
        self._lpips = lpips
        self._values: dict[str, KeptRows] = {}

    def add(self, asked: Asked, answer: Answer, seen: Seen | None = None) -> None:
        """Add a batch with its truth.

        Estimates are scored as images, so they are clamped to [0, 1] first.

        Raises:
            ValueError: the truth is not known.
        """
        if asked.truth_BCHW is None:
            raise ValueError("errors of counterfactuals need the truth")
        y_BCHW, truth_BCHW = asked.y_BCHW, asked.truth_BCHW
        estimate_BCHW = answer.with_noise_BCHW.clamp(0.0, 1.0)
        terms = effect_terms(y_BCHW, estimate_BCHW, truth_BCHW)
        new = {
            "error": terms.error_N,
            "size": terms.size_N,
            "off_error": terms.off_error_N,
            "off_count": terms.off_count_N,
            "mse": mse(estimate_BCHW, truth_BCHW),
            "psnr": psnr(estimate_BCHW, truth_BCHW),
        }
        if answer.mean_BCHW is not None:
            mean_BCHW = answer.mean_BCHW.clamp(0.0, 1.0)
            new["mean_image_error"] = effect_terms(y_BCHW, mean_BCHW, truth_BCHW).error_N
        if min(y_BCHW.shape[2:]) >= SSIM_WINDOW:
            new["ssim"] = ssim(estimate_BCHW, truth_BCHW)
            new["ms_ssim"] = ms_ssim(estimate_BCHW, truth_BCHW)
        if self._lpips is not None:
            new["lpips"] = self._lpips(estimate_BCHW, truth_BCHW)
        for name, values_B in new.items():
            self._values.setdefault(name, KeptRows()).add(values_B.detach().to("cpu").to(torch.float64))

    @property
    def count(self) -> int:
        """Images added so far."""
        return len(self._values.get("mse", ()))

    def per_image(self) -> dict[str, Tensor]:
        """Float64 values [N] by metric.

        These are error, size, off_error, off_count, mse and psnr, and mean_image_error, ssim, ms_ssim and lpips where
        they can be computed.
        """
        return {name: kept.all for name, kept in self._values.items()}

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """The evaluation's entries for this method; what is undefined (no true effect anywhere) is absent.

        relative_effect_error, relative_effect_error_mean_image (τ = 0), mse_counterfactual, psnr_counterfactual (dB),
        ssim_counterfactual, ms_ssim_counterfactual, lpips_counterfactual, mse_off_effect, pehe (root mean square of
        (y'−y)−(y*−y) per pixel and channel).

        Args:
            seed: seeds the bootstrap.

        Raises:
            ValueError: no images were added.
        """
        if not self.count:
            raise ValueError("no counterfactuals were added")
        values = self.per_image()
        squared = bootstrap_mean(values["mse"], seed=seed)
        entries: dict[str, Any] = {
            "mse_counterfactual": squared.to_dict(),
            "pehe": squared.map(math.sqrt).to_dict(),
            "psnr_counterfactual": bootstrap_mean(values["psnr"], seed=seed).to_dict(),
        }
        for name in ("ssim", "ms_ssim", "lpips"):
            if name in values:
                entries[f"{name}_counterfactual"] = bootstrap_mean(values[name], seed=seed).to_dict()
        for name, numerator, denominator in (
            ("relative_effect_error", "error", "size"),
            ("relative_effect_error_mean_image", "mean_image_error", "size"),
            ("mse_off_effect", "off_error", "off_count"),
        ):
            if numerator in values and float(values[denominator].sum()) > 0.0:
                entries[name] = bootstrap_ratio(values[numerator], values[denominator], seed=seed).to_dict()
        return entries
