"""Counterfactual latent divergence: is no more changed than the intended class needs? (Melistas et al. 2024)"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.kept import KeptRows
from civae_core.model.distributions import DiagonalNormal
from civae_core.yardstick import Yardstick

FACTUAL_WEIGHT, INTENDED_WEIGHT = 0.8, 0.2
"""Weights of the two shares in the published score."""
DOING_NOTHING = math.log(FACTUAL_WEIGHT + INTENDED_WEIGHT * math.e)
"""The score of returning the input unchanged: 0.2954."""
MOST_REFERENCES = 512
"""At most this many real images of each class serve as references."""
BATCH = 64


@dataclass(frozen=True)
class LatentReferences:
    """Posteriors of real images in the yardstick's latent space, by value of one treatment."""

    treatment: int
    """Index of the treatment."""
    by_value: dict[float, tuple[Tensor, DiagonalNormal]]
    """For each value, rows of the prepared data [M] with their posteriors [M, Z]."""


def latent_references(
    data: PreparedData, chosen: LabelledRows, treatment: int, yardstick: Yardstick, device: torch.device
) -> LatentReferences:
    """Real images of each class of one binary treatment, spread over the chosen rows; each set is read only once."""
    by_value = {}
    for value in (0.0, 1.0):
        members = (chosen.t_NT[:, treatment] == value).nonzero().squeeze(1)
        if not len(members):
            continue
        rows_M = chosen.rows_N[members[evenly_spread(len(members), MOST_REFERENCES)]]
        key = data.fingerprint, rows_M.numpy().tobytes()
        if key not in yardstick.known_latents:
            parts = (data.images(part).to(device).float() / 255 for part in rows_M.split(BATCH))
            yardstick.known_latents[key] = joined([yardstick.read(y_BCHW).latent for y_BCHW in parts])
        by_value[value] = rows_M.to(device), yardstick.known_latents[key]
    return LatentReferences(treatment, by_value)


def joined(parts: Sequence[DiagonalNormal]) -> DiagonalNormal:
    """The given distributions in one object."""
    return DiagonalNormal(
        torch.cat([part.mean_BZ for part in parts]), torch.cat([part.log_std_BZ for part in parts])
    )


class MinimalityTally:
    """Collects CLD = log(0.8·exp P(S_f ≤ d) + 0.2·exp P(S_i ≥ d)) of each image.

    d = KL(q(z|y) ‖ q(z|y')) in the yardstick's latent space; S_f are the divergences between y and other real images
    of its own class, S_i those between y and real images of the intended class. The score is small if the image has
    moved no further than images of one class differ, yet as far as the other class lies. The published code computes
    d with the posterior's location in place of its scale; here the variances are the posterior's own. Returning the
    input, which changes nothing, scores log(0.8 + 0.2·e) = 0.2954 (`doing_nothing`).

    Images whose treatment does not change, or whose classes have no real images, are left out.
    """

    def __init__(self, references: LatentReferences) -> None:
        self._references = references
        self._values = KeptRows()

    def add(self, asked: Asked, answer: Answer, seen: Seen | None) -> None:
        """
        Raises:
            ValueError: there is no reading by a yardstick.
        """
        if seen is None or asked.seen is None:
            raise ValueError("minimality needs a latent space")
        distance_B = asked.seen.latent.kl(seen.with_noise.latent)
        column = self._references.treatment
        old_B, new_B = asked.t_BT[:, column], asked.t_new_BT[:, column]
        own_B, other_B = torch.full_like(distance_B, torch.nan), torch.full_like(distance_B, torch.nan)
        for value, (rows_M, reference) in self._references.by_value.items():
            divergence_BM = pairwise_kl(asked.seen.latent, reference)
            others_BM = rows_M != asked.rows_B.to(rows_M.device)[:, None]
            count_B = others_BM.sum(dim=1)
            within_B = ((divergence_BM <= distance_B[:, None]) & others_BM).sum(dim=1) / count_B
            beyond_B = ((divergence_BM >= distance_B[:, None]) & others_BM).sum(dim=1) / count_B
            own_B = torch.where(old_B == value, within_B, own_B)
            other_B = torch.where(new_B == value, beyond_B, other_B)
        cld_B = (FACTUAL_WEIGHT * own_B.exp() + INTENDED_WEIGHT * other_B.exp()).log()
        self._values.add(cld_B[(old_B != new_B) & cld_B.isfinite()])

    def per_image(self) -> dict[str, Tensor]:
        return {}

    def summary(self, seed: int) -> dict[str, Any]:
        values_N = self._values.all
        if not len(values_N):
            return {}
        cld = bootstrap_mean(values_N, seed=seed).to_dict()
        return {"minimality": {"cld": cld, "doing_nothing": DOING_NOTHING}}


def pairwise_kl(one: DiagonalNormal, others: DiagonalNormal) -> Tensor:
    """KL(one_b ‖ others_m) in nats for every pair: [B, M]."""
    log_ratio_BMZ = others.log_std_BZ[None] - one.log_std_BZ[:, None]
    away_BMZ = (one.mean_BZ[:, None] - others.mean_BZ[None]) / others.std_BZ[None]
    return (log_ratio_BMZ + 0.5 * (torch.exp(-2 * log_ratio_BMZ) + away_BMZ.square() - 1)).sum(dim=2)
