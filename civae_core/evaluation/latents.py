"""What the latent dimensions hold: a subject's posteriors under two doses, and what moving one dimension paints."""

from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.counterfactual import Abduction
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.methods import TrainedModel
from civae_core.model import DiagonalNormal, IntactVAE

BATCH = 64


@dataclass(frozen=True)
class ArmPosteriors:
    """One dose of B subjects: its images, and the posterior and the prior that belong to it, along the same means."""

    image_BCHW: Tensor
    t_BT: Tensor
    posterior: DiagonalNormal
    prior: DiagonalNormal


@torch.no_grad()
def posteriors_by_arm(method: TrainedModel, asked: Asked) -> tuple[ArmPosteriors, ArmPosteriors]:
    """The factual and the intended dose, each with the encoder given *its own* image and treatment (M3).

    Giving the photograph with the other treatment, as the original project does, shows how the encoder explains a
    contradiction, not how the subject's latent differs. The image of the intended dose is the true counterfactual
    where it is known, else the method's own at τ = 1.
    """
    model = method.stored.model
    other_BCHW = asked.truth_BCHW
    if other_BCHW is None:
        other_BCHW = method.answer(asked).with_noise_BCHW.clamp(0.0, 1.0)

    def arm(image_BCHW: Tensor, t_BT: Tensor) -> ArmPosteriors:
        return ArmPosteriors(image_BCHW, t_BT, *_along_the_mean(model, image_BCHW, asked.x_BX, t_BT))

    return arm(asked.y_BCHW, asked.t_BT), arm(other_BCHW, asked.t_new_BT)


def _along_the_mean(
    model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor
) -> tuple[DiagonalNormal, DiagonalNormal]:
    """Posterior and prior of images, each scale of z given the posterior's means of the coarser ones."""
    posterior, z_BZ = model.encode(y_BCHW, x_BX, t_BT).central()
    return posterior, model.prior_of(x_BX, t_BT).at(z_BZ)


def divergence(one: DiagonalNormal, other: DiagonalNormal) -> Tensor:
    """Mean of both KL divergences in nats of each latent dimension [B, Z]: 0 where the two agree."""
    return (one.kl_by_dimension(other) + other.kl_by_dimension(one)) / 2


@torch.no_grad()
def posterior_kl(model: IntactVAE, data: PreparedData, chosen: LabelledRows, device: torch.device) -> Tensor:
    """Mean over images of KL(q(z|x,y,t) ‖ p(z|x,t)) in nats of each latent dimension: float64 [Z]."""
    total_Z = torch.zeros(model.latent, dtype=torch.float64)
    for start in range(0, len(chosen), BATCH):
        y_BCHW, x_BX, t_BT = chosen[start : start + BATCH].read(data, device)
        posterior, prior = _along_the_mean(model, y_BCHW, x_BX, t_BT)
        total_Z += posterior.kl_by_dimension(prior).double().cpu().sum(0)
    return total_Z / len(chosen)


@torch.no_grad()
def traverse(model: IntactVAE, abduction: Abduction, dimension: int, values_K: Tensor) -> Tensor:
    """The first subject with one dimension's noise η set to each value: decoder means (τ = 0) [K,C,S,S].

    Args:
        abduction: of at least one subject; its other dimensions and its treatment stay as they are.
        values_K: in standard deviations of the prior.
    """
    values_K = values_K.to(abduction.eta_BZ)
    eta_KZ = abduction.eta_BZ[:1].repeat(len(values_K), 1)
    eta_KZ[:, dimension] = values_K
    x_KX, t_KT = (a_BA[:1].expand(len(values_K), a_BA.shape[1]) for a_BA in (abduction.x_BX, abduction.t_BT))
    return model.decode(model.prior_of(x_KX, t_KT).sample(eta_KZ), t_KT, x_KX).mean_BCHW
