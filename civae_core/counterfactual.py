"""Counterfactual images: abduct, act, predict (docs/method.md).

    abduct   z ~ q(z|x,y,t);   η = (z − h(x,t)) / k(x,t);   e = y − f(z,t)          (M5)
    act      t ← t'
    predict  z' = h(x,t') + k(x,t')·ρ·Rη;  y' = f(z',t') + τ·m·e                    (M6)

R pairs the noises of different arms (`civae_core.model.pairing`); ρ and m are masks (`civae_core.noise_mask`). For a
decoder that paints fine detail on top (`civae_core.model.detail`), f(z',t') stands for g(z'₁,t') + m·H d(z'₂, …).

If z has several scales, h and k of each scale are given the coarser scales of z when abducting, and of z' when
predicting.

Shapes: y_BCHW images in [0,1], x_BX and t_BT attributes in raw units, z_BZ latent vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.act import acted
from civae_core.assignments import Intervention
from civae_core.attributes import Attribute
from civae_core.config.schema import Objective
from civae_core.model import IntactVAE, PixelNormal
from civae_core.model.distributions import DiagonalNormal
from civae_core.noise_mask import carry, noise_mask, without


@dataclass(frozen=True)
class Abduction:
    """What a photograph tells about its subject, apart from the treatment (M5)."""

    y_BCHW: Tensor
    x_BX: Tensor
    t_BT: Tensor
    prior: DiagonalNormal
    """p(z|x,t) at the factual t, along this z."""
    eta_BZ: Tensor
    """Latent noise η, standardised under the prior at the factual t."""
    z_BZ: Tensor
    reconstruction: PixelNormal
    """f(z, t): the decoder's reconstruction of the photograph."""
    residual_BCHW: Tensor
    """Pixel noise e = y − f(z, t)."""


@dataclass(frozen=True)
class Prediction:
    """A counterfactual image and its parts; `image_BCHW` is not clipped to [0,1] until it is shown."""

    image_BCHW: Tensor
    mean_BCHW: Tensor
    """f(z, t) + strength·Δ, the image at τ = 0; at strength 1 it is f(z', t')."""
    effect_BCHW: Tensor
    """Δ = f(z', t') − f(z, t), not multiplied by the strength.

    If a decoder paints fine detail, the strength still matters: the mask m in f(z', t') is that of strength·Δ.
    """


@torch.no_grad()
def abduct(
    model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, noise_BZ: Tensor | None = None
) -> Abduction:
    """Abduct both noises of (M5), under the factual treatment.

    Without `noise_BZ`, z is the posterior's mean; with standard normal noise, it is a draw from the posterior.
    """
    posterior = model.encode(y_BCHW, x_BX, t_BT)
    _, z_BZ = posterior.central() if noise_BZ is None else posterior.draw(noise_BZ)
    return abduct_at(model, y_BCHW, x_BX, t_BT, z_BZ)


@torch.no_grad()
def abduct_at(model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, z_BZ: Tensor) -> Abduction:
    """Abduct the noises of (M5) for a given z."""
    reconstruction = model.decode(z_BZ, t_BT, x_BX)
    prior = model.prior_of(x_BX, t_BT).at(z_BZ)
    return Abduction(
        y_BCHW=y_BCHW,
        x_BX=x_BX,
        t_BT=t_BT,
        prior=prior,
        eta_BZ=prior.standardise(z_BZ),
        z_BZ=z_BZ,
        reconstruction=reconstruction,
        residual_BCHW=y_BCHW - reconstruction.mean_BCHW,
    )


def act(t_BT: Tensor, intervention: Intervention, treatments: Sequence[Attribute]) -> Tensor:
    """Apply `acted` to a tensor on any device."""
    t_new_BT = acted(t_BT.cpu().numpy(), intervention, treatments)
    return torch.from_numpy(t_new_BT).to(t_BT.device)


@torch.no_grad()
def predict(
    model: IntactVAE, abduction: Abduction, t_new_BT: Tensor, *, noise: float = 1.0, strength: float = 1.0
) -> Prediction:
    """Predict the image under the treatment t' (M6).

    A null intervention at τ = 1 returns the photograph to float precision, whatever the prior.

    Args:
        t_new_BT: intended treatments; any real values, in raw units.
        noise: τ in [0, 1]; 0 gives the decoder's mean, 1 re-applies all pixel noise that the model's mask leaves.
        strength: scales the effect Δ; 1 is the model's estimate.
    """
    # Setting z' = z where t does not change keeps rounding in standardise and sample out of null interventions.
    changed_B1 = (t_new_BT != abduction.t_BT).any(dim=1, keepdim=True)
    prior = model.prior_of(abduction.x_BX, t_new_BT)
    eta_new_BZ = model.paired(abduction.eta_BZ, abduction.t_BT, t_new_BT)

    def moved(eta_BZ: Tensor) -> Tensor:
        _, moved_BZ = carry(eta_BZ, abduction.prior, prior, model.latent_mask_width)
        return torch.where(changed_B1, moved_BZ, abduction.z_BZ)

    old, z_new_BZ = abduction.reconstruction, moved(eta_new_BZ)
    if model.looks is None or model.looks_mask_width is None:
        new = model.decode(z_new_BZ, t_new_BT, abduction.x_BX)
        structure_BCHW = new.structure_BCHW
    else:
        typical_BZ = moved(without(eta_new_BZ, model.looks))
        new, typical_BCHW = model.decode_with_other_looks(z_new_BZ, typical_BZ, t_new_BT, abduction.x_BX)
        own_B1HW = noise_mask(new.structure_BCHW - old.structure_BCHW, "fade", model.looks_mask_width)
        structure_BCHW = torch.lerp(typical_BCHW, new.structure_BCHW, own_B1HW)
    change_BCHW = structure_BCHW - old.structure_BCHW
    kept_B1HW = noise_mask(strength * change_BCHW, model.noise_mask, model.mask_width)
    # Fine detail is noise that the model has learned to encode, so it fades like the rest of the noise.
    detail_BCHW = kept_B1HW * (new.mean_BCHW - new.structure_BCHW)
    effect_BCHW = structure_BCHW + detail_BCHW - old.mean_BCHW
    mean_BCHW = old.mean_BCHW + strength * effect_BCHW
    # With a per-pixel σ, e keeps its size in standard deviations, which differ in the new image (METHOD 3).
    rescale = torch.exp(strength * (new.log_sigma - old.log_sigma))
    noise_BCHW = kept_B1HW * rescale * abduction.residual_BCHW
    return Prediction(mean_BCHW + noise * noise_BCHW, mean_BCHW, effect_BCHW)


@torch.no_grad()
def predict_as_original(
    model: IntactVAE, abduction: Abduction, t_new_BT: Tensor, *, noise: float = 1.0, strength: float = 1.0
) -> Prediction:
    """The original project's inference, kept as a baseline: the encoder is given the *new* treatment.

    z = mean of q(z|x,y,t'), y' = f(z, t') + τ·e with e from the factual pass. With a perfect encoder the result is
    "no change", which is why `predict` never does this. Arguments as for `predict`.
    """
    _, wrong_BZ = model.encode(abduction.y_BCHW, abduction.x_BX, t_new_BT).central()
    old_BCHW = abduction.reconstruction.mean_BCHW
    effect_BCHW = model.decode(wrong_BZ, t_new_BT, abduction.x_BX).mean_BCHW - old_BCHW
    mean_BCHW = old_BCHW + strength * effect_BCHW
    return Prediction(mean_BCHW + noise * abduction.residual_BCHW, mean_BCHW, effect_BCHW)


PREDICTIONS: dict[str, Callable[..., Prediction]] = {
    "intact": predict,
    "cvae": predict,
    "original": predict_as_original,
}
"""The prediction function for each training objective; all take the arguments of `predict`."""


def counterfactual(
    model: IntactVAE,
    y_BCHW: Tensor,
    x_BX: Tensor,
    t_BT: Tensor,
    t_new_BT: Tensor,
    *,
    noise: float = 1.0,
    strength: float = 1.0,
    objective: Objective = "intact",
) -> Prediction:
    """Abduct at the posterior's mean, then predict with the function for the model's `objective`."""
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    return PREDICTIONS[objective](model, abduction, t_new_BT, noise=noise, strength=strength)
