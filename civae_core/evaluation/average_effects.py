"""Mean effects as images: over everyone (ATE) and per group of subjects (CATE), from photographs or the prior."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.draws import decode_prior
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.group_means import GroupMeans
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.question import Question
from civae_core.model import IntactVAE
from civae_core.randomness import generator_for

BATCH = 64
BLOCK = 64
"""Number of subjects whose noise is drawn at a time. It is fixed, because the noise may depend on it."""
TRUTH, FROM_PRIOR = "truth", "from prior"


@dataclass(frozen=True)
class EffectGroup:
    """A group of a question's subjects; `member_N` says which."""

    label: str
    member_N: Tensor

    @property
    def count(self) -> int:
        return int(self.member_N.sum())


def effect_groups(
    question: Question, covariates: Sequence[Attribute], limit: int | None = None, fewest: int = 1
) -> list[EffectGroup]:
    """Everyone whose treatment the question changes, then one group per value of up to `limit` binary covariates.

    A covariate with only one value is skipped, because its group would be everyone again.

    Args:
        fewest: minimum number of subjects for each value; covariates with fewer are skipped.
    """
    moved_N = (question.t_new_NT != question.chosen.t_NT).any(dim=1)
    groups = [EffectGroup("everyone", moved_N)]
    for column, attribute in enumerate(covariates):
        if attribute.kind != "binary" or (limit is not None and len(groups) > 2 * limit):
            continue
        halves = [
            EffectGroup(label, moved_N & half_N)
            for label, half_N in halves_by(attribute, question.chosen.x_NX[:, column])
        ]
        if all(half.count >= fewest for half in halves):
            groups += halves
    return groups


def halves_by(attribute: Attribute, x_N: Tensor) -> list[tuple[str, Tensor]]:
    """Labels and members [N] for both values of a binary attribute, or both sides of a continuous one's median."""
    if attribute.kind == "binary":
        return [(f"{attribute.name} = {value}", x_N == value) for value in (0, 1)]
    middle = float(x_N.median())
    return [
        (f"{attribute.name} ≤ {middle:.3g}", x_N <= middle),
        (f"{attribute.name} > {middle:.3g}", x_N > middle),
    ]


def members(groups: Sequence[EffectGroup]) -> Tensor:
    """Which subjects belong to which group, bool [G,N]."""
    return torch.stack([group.member_N for group in groups])


def in_batches(question: Question, data: PreparedData, device: torch.device) -> Iterator[tuple[slice, Asked]]:
    """Yield the question's subjects in batches, as methods are asked about them, each with its slice."""
    for start in range(0, len(question.chosen), BATCH):
        items = slice(start, start + BATCH)
        yield items, question.batch(data, items, device)


@torch.no_grad()
def average_effects(
    methods: Sequence[TrainedModel],
    data: PreparedData,
    question: Question,
    groups: Sequence[EffectGroup],
    device: torch.device,
    seed: int,
) -> dict[str, Tensor]:
    """The mean effect of raising the treatment in each group, float32 [G,C,S,S] by column, in one streamed pass.

    Columns are the methods by name, `from prior` (of the first method) and, where it is known, `truth`. As in the
    score `ate_error`, images are clamped to [0,1], and the effect on a subject whose treatment is lowered counts
    with the opposite sign; otherwise raising and lowering would cancel out.

    Raises:
        ValueError: a group has no members.
    """
    order = [*(m.name for m in methods), FROM_PRIOR, *([TRUTH] if question.truth is not None else [])]
    means = {name: GroupMeans(members(groups)) for name in order}
    model = methods[0].stored.model
    noise = PriorNoise(model, seed)
    for items, asked in in_batches(question, data, device):
        for method in methods:
            estimate_BCHW = method.answer(asked).with_noise_BCHW.clamp(0, 1)
            means[method.name].add(items.start, raising(asked, estimate_BCHW - asked.y_BCHW))
        means[FROM_PRIOR].add(items.start, effects_from_prior(model, asked, noise.next(len(asked.y_BCHW))))
        if asked.truth_BCHW is not None:
            means[TRUTH].add(items.start, raising(asked, asked.truth_BCHW - asked.y_BCHW))
    return {name: means[name].mean_GCHW.float() for name in order}


def raising(asked: Asked, effect_BCHW: Tensor) -> Tensor:
    """Effects y'−y as effects of raising the treatment: with the opposite sign where it was lowered."""
    return asked.direction_B.to(effect_BCHW)[:, None, None, None] * effect_BCHW


class PriorNoise:
    """Standard normal η for draws from the prior, for one subject after another.

    A subject's numbers depend neither on how subjects are batched nor on how many there are. They are drawn for a few
    subjects at a time: those of everyone, times the draws, might not fit into memory.
    """

    def __init__(self, model: IntactVAE, seed: int, draws: int = 1) -> None:
        self._latent = model.latent
        self._generators = [generator_for(seed, "effects-from-prior", draw) for draw in range(draws)]
        self._waiting_DMZ = torch.empty(draws, 0, model.latent)

    def next(self, count: int) -> Tensor:
        """The noise [D,count,Z] of the next subjects."""
        while self._waiting_DMZ.shape[1] < count:
            block_DMZ = torch.stack([torch.randn(BLOCK, self._latent, generator=g) for g in self._generators])
            self._waiting_DMZ = torch.cat([self._waiting_DMZ, block_DMZ], dim=1)
        next_DBZ, self._waiting_DMZ = self._waiting_DMZ.tensor_split([count], dim=1)
        return next_DBZ


@torch.no_grad()
def effects_from_prior(model: IntactVAE, asked: Asked, eta_DBZ: Tensor) -> Tensor:
    """f(z₁,t₁) − f(z₀,t₀) [B,C,S,S] with z ~ p(z|x,t), for the two doses asked about, t₀ < t₁; uses no photograph.

    The result is the mean over D draws with each subject's covariates and doses.
    """
    raised_B1 = (asked.direction_B >= 0)[:, None]
    lower_BT = torch.where(raised_B1, asked.t_BT, asked.t_new_BT)
    higher_BT = torch.where(raised_B1, asked.t_new_BT, asked.t_BT)
    lower_BCHW, higher_BCHW = pairs_from_prior(model, asked.x_BX, lower_BT, higher_BT, eta_DBZ)
    return higher_BCHW - lower_BCHW


@torch.no_grad()
def pairs_from_prior(
    model: IntactVAE, x_BX: Tensor, t_BT: Tensor, t_new_BT: Tensor, eta_DBZ: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean images of subjects from the prior under two treatments, clamped to [0,1], each [B,C,S,S].

    Both treatments share the noise η, which removes most of the sampling error from their difference; under the
    balanced prior p(z|x) they therefore share z. η is not rotated from one treatment to the other
    (`civae_core.draws`): no subject is shown alone, and rotation would estimate the same means less precisely. Each
    result is the mean of decoded samples, not the decoding of a mean (docs/method.md).
    """

    def mean_image(dose_BT: Tensor) -> Tensor:
        # Summed as they come: all draws at once would take gigabytes.
        images = (decode_prior(model, x_BX, dose_BT, eta_BZ.to(x_BX)).clamp(0, 1) for eta_BZ in eta_DBZ)
        return reduce(torch.add, images) / len(eta_DBZ)

    return mean_image(t_BT), mean_image(t_new_BT)
