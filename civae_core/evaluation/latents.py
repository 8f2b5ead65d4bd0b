"""What the latent dimensions hold: a subject's posteriors under two doses, and the images along one dimension."""

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
    """B subjects under one dose: images, and their posterior and prior, both given the posterior's coarser means."""

    image_BCHW: Tensor
    t_BT: Tensor
    posterior: DiagonalNormal
    prior: DiagonalNormal


@torch.no_grad()
def posteriors_by_arm(method: TrainedModel, asked: Asked) -> tuple[ArmPosteriors, ArmPosteriors]:
    """Posteriors under the factual and the intended dose, each encoded from *its own* image and treatment (M3).

    Encoding the photograph with the other treatment, as the original project does, shows how the encoder explains a
    contradiction, not how the subject's latent code differs. The image for the intended dose is the true
    counterfactual where it is known, and otherwise the method's own at τ = 1.
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
    """Posterior and prior of images, each scale of z given the posterior means of the coarser scales."""
    posterior, z_BZ = model.encode(y_BCHW, x_BX, t_BT).central()
    return posterior, model.prior_of(x_BX, t_BT).at(z_BZ)


def divergence(one: DiagonalNormal, other: DiagonalNormal) -> Tensor:
    """Mean of the two KL divergences in nats for each latent dimension [B, Z]; 0 where the distributions agree."""
    return (one.kl_by_dimension(other) + other.kl_by_dimension(one)) / 2


@torch.no_grad()
def posterior_kl(model: IntactVAE, data: PreparedData, chosen: LabelledRows, device: torch.device) -> Tensor:
    """Mean over images of KL(q(z|x,y,t) ‖ p(z|x,t)) in nats for each latent dimension, float64 [Z]."""
    total_Z = torch.zeros(model.latent, dtype=torch.float64)
    for start in range(0, len(chosen), BATCH):
        y_BCHW, x_BX, t_BT = chosen[start : start + BATCH].read(data, device)
        posterior, prior = _along_the_mean(model, y_BCHW, x_BX, t_BT)
        total_Z += posterior.kl_by_dimension(prior).cpu().double().sum(0)
    return total_Z / len(chosen)


@torch.no_grad()
def traverse(model: IntactVAE, abduction: Abduction, dimension: int, values_K: Tensor) -> Tensor:
    """Decoder means (τ = 0) [K,C,S,S] of the first subject, with the noise η of one dimension set to each value.

    Args:
        abduction: of at least one subject; the other dimensions and the treatment stay as they are.
        values_K: in standard deviations of the prior.
    """
    values_K = values_K.to(abduction.eta_BZ)
    eta_KZ = abduction.eta_BZ[:1].repeat(len(values_K), 1)
    eta_KZ[:, dimension] = values_K
    x_KX, t_KT = (a_BA[:1].expand(len(values_K), a_BA.shape[1]) for a_BA in (abduction.x_BX, abduction.t_BT))
    return model.decode(model.prior_of(x_KX, t_KT).sample(eta_KZ), t_KT, x_KX).mean_BCHW
