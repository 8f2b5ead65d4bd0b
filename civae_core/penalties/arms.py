"""The other arm t' that penalties ask about, and the model's prediction for it (M5, M6), with gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.model import DiagonalNormal, IntactVAE
from civae_core.noise_mask import carry, latent_mask


def other_arm(t_BT: Tensor, treatments: Sequence[Attribute]) -> tuple[Tensor, Tensor]:
    """Another arm for each image, and which of its treatments are asked to change: both [B, T].

    A binary treatment flips. A continuous one takes the value of the previous image in the batch, which is a random
    value since batches are shuffled. With several treatments, images in turn change each one alone, and then all
    together. Nothing is drawn at random, so a resumed run gets the same arms.
    """
    batch, count = t_BT.shape
    columns = [
        1 - t_BT[:, j] if attribute.kind == "binary" else t_BT[:, j].roll(1)
        for j, attribute in enumerate(treatments)
    ]
    turns = count + 1 if count > 1 else 1
    turn_B1 = (torch.arange(batch, device=t_BT.device) % turns)[:, None]
    all_at_once_B1 = turn_B1 == turns - 1
    asked_BT = (turn_B1 == torch.arange(count, device=t_BT.device)) | all_at_once_B1
    return torch.where(asked_BT, torch.stack(columns, dim=1), t_BT), asked_BT


@dataclass(frozen=True)
class Counterfactual:
    """What (M6) predicts for each image under t', with gradients to the whole model."""

    t_new_BT: Tensor
    asked_BT: Tensor
    """Which treatments are asked to change."""
    latent: DiagonalNormal
    """The posterior of z carried to t': N( h' + k'·ρ·(r − h)/k, (k'·s/k)² ), as uncertain about z' as about z.

    With several scales, each is given the coarser scales of the drawn z and of its z'.
    """
    z_BZ: Tensor
    """z', carried over from the drawn z."""
    mean_BCHW: Tensor
    """f(z', t') for one draw of z: the image at τ = 0, before looks are masked."""


def counterfactual_of(
    model: IntactVAE,
    x_BX: Tensor,
    t_new_BT: Tensor,
    asked_BT: Tensor,
    posterior: DiagonalNormal,
    prior: DiagonalNormal,
    noise_BZ: Tensor,
) -> Counterfactual:
    """Abduct η under `prior`, the prior at t, and predict under t'; the mask ρ receives no gradient.

    Noises are unpaired (R is the identity), as in all of training before its last step (`training.pairing`).

    `posterior` and `prior` are those along the training pass's draw of z, and `noise_BZ` is the noise of that draw,
    so that the image belongs to the same draw.
    """
    eta_BZ = prior.standardise(posterior.sample(noise_BZ))
    new, z_new_BZ = carry(eta_BZ, prior, model.prior_of(x_BX, t_new_BT), model.latent_mask_width)
    kept_BZ = latent_mask(prior, new, model.latent_mask_width).detach()
    log_spread_BZ = posterior.log_std_BZ - prior.log_std_BZ
    mean_BZ = new.sample(kept_BZ * prior.standardise(posterior.mean_BZ))
    latent = DiagonalNormal(mean_BZ, new.log_std_BZ + log_spread_BZ)
    decoded = model.decode(z_new_BZ, t_new_BT, x_BX)
    return Counterfactual(t_new_BT, asked_BT, latent, z_new_BZ, decoded.mean_BCHW)
