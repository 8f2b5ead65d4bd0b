"""Mean effects as images: of everyone (ATE) and of each group of subjects (CATE), from photographs or the prior."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
TRUTH, FROM_PRIOR = "truth", "from prior"


@dataclass(frozen=True)
class EffectGroup:
    """Some of a question's subjects; `member_N` says which."""

    label: str
    member_N: Tensor

    @property
    def count(self) -> int:
        return int(self.member_N.sum())


def effect_groups(
    question: Question, covariates: Sequence[Attribute], limit: int | None = None, fewest: int = 1
) -> list[EffectGroup]:
    """Everyone whose treatment the question changes, then both values of at most `limit` binary covariates.

    A covariate with one value only would show everyone again, and is passed over.

    Args:
        fewest: subjects that either value must have.
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
    """Labels and members [N] of both values of a binary attribute, or of either side of a continuous one's median."""
    if attribute.kind == "binary":
        return [(f"{attribute.name} = {value}", x_N == value) for value in (0, 1)]
    middle = float(x_N.median())
    return [
        (f"{attribute.name} ≤ {middle:.3g}", x_N <= middle),
        (f"{attribute.name} > {middle:.3g}", x_N > middle),
    ]


def members(groups: Sequence[EffectGroup]) -> Tensor:
    """Bool [G,N]."""
    return torch.stack([group.member_N for group in groups])


def in_batches(question: Question, data: PreparedData, device: torch.device) -> Iterator[tuple[slice, Asked]]:
    """The question's subjects as methods are asked about them, with their places."""
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
    score `ate_error`, images are clamped to [0,1] and the effect of a subject whose treatment is lowered counts
    with the opposite sign; without that, flips of both kinds would cancel each other.

    Raises:
        ValueError: a group without members.
    """
    order = [*(m.name for m in methods), FROM_PRIOR, *([TRUTH] if question.truth is not None else [])]
    means = {name: GroupMeans(members(groups)) for name in order}
    model = methods[0].stored.model
    eta_DNZ = prior_noise(model, len(question.chosen), seed)
    for items, asked in in_batches(question, data, device):
        for method in methods:
            estimate_BCHW = method.answer(asked).with_noise_BCHW.clamp(0, 1)
            means[method.name].add(items.start, raising(asked, estimate_BCHW - asked.y_BCHW))
        means[FROM_PRIOR].add(items.start, effects_from_prior(model, asked, eta_DNZ[:, items]))
        if asked.truth_BCHW is not None:
            means[TRUTH].add(items.start, raising(asked, asked.truth_BCHW - asked.y_BCHW))
    return {name: means[name].mean_GCHW.float() for name in order}


def raising(asked: Asked, effect_BCHW: Tensor) -> Tensor:
    """Effects y'−y as those of raising the treatment: with the opposite sign where it was lowered."""
    return asked.direction_B.to(effect_BCHW)[:, None, None, None] * effect_BCHW


def prior_noise(model: IntactVAE, count: int, seed: int, draws: int = 1) -> Tensor:
    """Standard normal η [D,N,Z] for draws from the prior, the same in whatever batches they are used."""
    return torch.stack(
        [
            torch.randn(count, model.latent, generator=generator_for(seed, "effects-from-prior", draw))
            for draw in range(draws)
        ]
    )


@torch.no_grad()
def effects_from_prior(model: IntactVAE, asked: Asked, eta_DBZ: Tensor) -> Tensor:
    """f(z₁,t₁) − f(z₀,t₀) [B,C,S,S] with z ~ p(z|x,t) and t₀ < t₁ the two doses asked about: no photograph is used.

    The mean over D draws for each subject's covariates and doses.
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

    Both treatments share the noise η, which takes most of the sampling error out of their difference; under the
    balanced prior p(z|x) they so share z. It is not turned from one to the other (`civae_core.draws`): nobody is
    shown alone, and the same means would be known less well. They are those of decoded samples, not the decoding of
    a mean (docs/method.md).
    """
    first, second = (
        torch.stack(
            [decode_prior(model, x_BX, dose_BT, eta_BZ.to(x_BX)).clamp(0, 1) for eta_BZ in eta_DBZ]
        ).mean(dim=0)
        for dose_BT in (t_BT, t_new_BT)
    )
    return first, second
