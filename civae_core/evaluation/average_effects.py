"""Mean effects as images: of everyone (ATE) and of each group of subjects (CATE), from photographs or the prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.evaluation.asked import Asked
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


def effect_groups(question: Question, covariates: Sequence[Attribute], limit: int) -> list[EffectGroup]:
    """Everyone whose treatment the question changes, then both values of at most `limit` binary covariates.

    A covariate with one value only would show everyone again, and is passed over.
    """
    moved_N = (question.t_new_NT != question.chosen.t_NT).any(dim=1)
    groups = [EffectGroup("everyone", moved_N)]
    for column, attribute in enumerate(covariates):
        if attribute.kind != "binary" or len(groups) > 2 * limit:
            continue
        x_N = question.chosen.x_NX[:, column]
        halves = [EffectGroup(f"{attribute.name} = {value}", moved_N & (x_N == value)) for value in (0, 1)]
        if all(half.count for half in halves):
            groups += halves
    return groups


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
    if not groups or not all(group.count for group in groups):
        raise ValueError("a mean effect needs at least one subject in each group")
    member_GN = torch.stack([group.member_N for group in groups]).double()
    sums: dict[str, Tensor] = {}
    for start in range(0, len(question.chosen), BATCH):
        items = slice(start, start + BATCH)
        asked = question.batch(data, items, device)
        sign_B111 = asked.direction_B.to(asked.y_BCHW)[:, None, None, None]
        effects = {m.name: m.answer(asked).with_noise_BCHW.clamp(0, 1) - asked.y_BCHW for m in methods}
        if asked.truth_BCHW is not None:
            effects[TRUTH] = asked.truth_BCHW - asked.y_BCHW
        signed = {name: sign_B111 * effect_BCHW for name, effect_BCHW in effects.items()}
        signed[FROM_PRIOR] = effects_from_prior(methods[0].stored.model, asked, seed, start)
        for name, effect_BCHW in signed.items():
            part_GCHW = torch.einsum("gb,bchw->gchw", member_GN[:, items], effect_BCHW.double().cpu())
            sums[name] = sums[name] + part_GCHW if name in sums else part_GCHW
    order = [*(m.name for m in methods), FROM_PRIOR, *([TRUTH] if TRUTH in sums else [])]
    return {name: (sums[name] / member_GN.sum(1)[:, None, None, None]).float() for name in order}


@torch.no_grad()
def effects_from_prior(model: IntactVAE, asked: Asked, seed: int, position: int = 0) -> Tensor:
    """f(z₁,t₁) − f(z₀,t₀) [B,C,S,S] with z ~ p(z|x,t) and t₀ < t₁ the two doses asked about: no photograph is used.

    Both doses share the noise η, which takes most of the sampling error out of their difference. Averages over the
    batch are those of decoded samples, not the decoding of an average (METHOD section 3).
    """
    raised_B1 = (asked.direction_B >= 0)[:, None]
    lower_BT = torch.where(raised_B1, asked.t_BT, asked.t_new_BT)
    higher_BT = torch.where(raised_B1, asked.t_new_BT, asked.t_BT)
    generator = generator_for(seed, "effects-from-prior", position)
    eta_BZ = torch.randn(len(asked.y_BCHW), model.latent, generator=generator).to(asked.y_BCHW.device)
    lower_BCHW, higher_BCHW = (
        decode_prior(model, asked.x_BX, t_BT, eta_BZ).clamp(0, 1) for t_BT in (lower_BT, higher_BT)
    )
    return higher_BCHW - lower_BCHW


@torch.no_grad()
def decode_prior(model: IntactVAE, x_BX: Tensor, t_BT: Tensor, eta_BZ: Tensor) -> Tensor:
    """f(h(x,t) + k(x,t)·η, t): images of subjects that never were, decoder means [B,C,S,S]."""
    return model.decode(model.prior_of(x_BX, t_BT).sample(eta_BZ), t_BT, x_BX).mean_BCHW
