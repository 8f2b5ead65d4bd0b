"""The last step of training: learn from contours which latent noises of different treatments belong together.

    P = mean over pixels and channels of | c(f(z',t')) − c(f(z,t)) |,    z = r,    z' = h' + k'·ρ·Rη

Counterfactuals of training images should keep the contours of their reconstructions. c is the strength of an edge,
whichever side of it is lighter (`model.contours`), and r is the posterior's mean. Only the rotation R of (M6) learns
from P, and only after everything else has been learned. If the rest of the model learned from P too, it would rather
have no effect at all; and a rotation learned while the model still changes ends far from the one that suits the
finished model (measured: docs/noises.md).

The contours drawn by a model that has learned little mean little, and keeping them costs it some of its effect. The
rotation is therefore dropped if the model's own predictor sees fewer counterfactuals as asked with it than without,
by more than chance. A model without a predictor, or with continuous treatments only, cannot be checked like this; it
keeps the rotation, and the log says so.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.counterfactual import Abduction, abduct, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.model import IntactVAE
from civae_core.model.contours import contours
from civae_core.model.precision import full_precision
from civae_core.noise_mask import carry
from civae_core.penalties.arms import other_arm
from civae_core.progress import progress
from civae_core.randomness import generator_for
from civae_core.training.optimizers import Adam

log = logging.getLogger(__name__)

BATCH = 32
RATE = 0.005
"""Adam's initial learning rate, roughly in radians; it decays to zero along a cosine."""
CHECKED = 8
"""Batches of training images whose counterfactuals are compared with and without the rotation."""

Images = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images in [0,1] with raw factual attributes, and the treatments asked for: (y_BCHW, x_BX, t_BT, t_new_BT)."""


@dataclass(frozen=True)
class Fitted:
    """How far apart the contours were: means of P over the first and the last tenth of the steps."""

    before: float
    after: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "pairing_loss_before": self.before,
            "pairing_loss": self.after,
            "pairing_seconds": round(self.seconds, 1),
        }


def fit_pairing(
    model: IntactVAE,
    data: PreparedData,
    rows: LabelledRows,
    roles: AttributeRoles,
    *,
    images: int,
    seed: int,
    device: torch.device,
    stopped: Callable[[int], int],
    at_once: int | None = None,
) -> Fitted | None:
    """Fit the rotation of a trained model from scratch, in float32, to `images` draws from `rows`, 32 per step.

    The same seed draws the same images whatever was drawn before, so a fit that was stopped and starts over gives the
    same bits.

    Args:
        model: in evaluation mode, with frozen weights.
        stopped: called with the number of each step (`steps_of` in all) before it; any result but 0 ends the fit.
        at_once: number of images computed at once, to save memory; None computes all of a step.

    Returns:
        None if the fit was stopped. The rotation is then the identity, as it also is if it became non-finite or made
        fewer counterfactuals look as asked.

    Raises:
        ValueError: the model has no pairing.
    """
    if model.pairing is None:
        raise ValueError("the model has no pairing")
    steps, began = steps_of(images), time.monotonic()
    generator = generator_for(seed, "pairing")

    def draw() -> list[Images]:
        chosen = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        y_BCHW, x_BX, t_BT = chosen.read(data, device)
        t_new_BT, _ = other_arm(t_BT, roles.treatments)  # depends on an image's place in the step
        images = (y_BCHW, x_BX, t_BT, t_new_BT)
        return list(zip(*(values.split(at_once or BATCH) for values in images), strict=True))

    model.pairing.forget()
    losses = _descend(model, model.pairing.free_TLL, draw, steps, stopped)
    if len(losses) < steps:
        model.pairing.forget()
        return None
    if not model.pairing.free_TLL.isfinite().all():
        log.warning("the pairing of latent noises became non-finite: the noises are left unpaired")
        model.pairing.forget()
    else:
        with torch.no_grad():
            checked = [part for _ in range(CHECKED) for part in draw()]
            _forget_if_it_takes_the_effect(model, checked, roles.treatments)
    tenth = max(steps // 10, 1)
    first, last = (float(torch.stack(part).mean()) for part in (losses[:tenth], losses[-tenth:]))
    return Fitted(first, last, time.monotonic() - began)


def steps_of(images: int) -> int:
    """Number of steps in which a fit draws `images` images."""
    return max(images // BATCH, 1)


def _descend(
    model: IntactVAE,
    angles_TLL: Tensor,
    draw: Callable[[], Sequence[Images]],
    steps: int,
    stopped: Callable[[int], int],
) -> list[Tensor]:
    """Minimise P over the rotation's angles in place, and return P of each step (fewer of them if stopped).

    Args:
        draw: gives a step's images, in parts that are computed one after another.
    """
    angles_TLL.requires_grad_()
    optimizer = Adam([angles_TLL], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[Tensor] = []
    with progress("pair", steps * BATCH) as bar:
        while len(losses) < steps and not stopped(len(losses)):
            optimizer.zero_grad()
            losses.append(_add_gradients(model, draw()))
            optimizer.step()
            schedule.step()
            bar.advance(BATCH)
    angles_TLL.requires_grad_(False)
    return losses


def _add_gradients(model: IntactVAE, parts: Sequence[Images]) -> Tensor:
    """Add up the gradients of P, a mean over the images of all parts, part by part; return P."""
    images = sum(len(part[0]) for part in parts)
    shares = []
    for part in parts:
        share = pairing_loss(model, *part).mean() * (len(part[0]) / images)
        with full_precision(share.device):  # as forward
            share.backward()
        shares.append(share.detach())
    return torch.stack(shares).sum()


def _forget_if_it_takes_the_effect(
    model: IntactVAE, parts: Sequence[Images], treatments: tuple[Attribute, ...]
) -> None:
    """Drop the rotation if, by more than chance, fewer counterfactuals are seen as asked with it than without."""
    assert model.pairing is not None
    if model.predictor is None or all(treatment.kind != "binary" for treatment in treatments):
        log.info("latent noises are paired without a check: no binary treatment is predicted")
        return
    angles_TLL = model.pairing.free_TLL.clone()
    asked = [(abduct(model, y_BCHW, x_BX, t_BT), t_new_BT) for y_BCHW, x_BX, t_BT, t_new_BT in parts]
    with_it_N = torch.cat([seen_as_asked(model, *each, treatments) for each in asked])
    model.pairing.forget()
    without_N = torch.cat([seen_as_asked(model, *each, treatments) for each in asked])
    lost, won = int((without_N & ~with_it_N).sum()), int((with_it_N & ~without_N).sum())
    if lost - won > 2 * math.sqrt(lost + won):  # two standard deviations, if both were equally likely
        log.warning(
            "with paired latent noises %d of %d counterfactuals look as asked, without pairing %d: "
            "the noises are left unpaired",
            *(int(with_it_N.sum()), len(with_it_N), int(without_N.sum())),
        )
    else:
        model.pairing.free_TLL.copy_(angles_TLL)


def seen_as_asked(
    model: IntactVAE, abduction: Abduction, t_new_BT: Tensor, treatments: tuple[Attribute, ...]
) -> Tensor:
    """Whether the predictor sees in each counterfactual (M6) the binary treatments that were asked for: [B].

    Raises:
        ValueError: the model has no predictor.
    """
    if model.predictor is None:
        raise ValueError("the model has no predictor")
    image_BCHW = predict(model, abduction, t_new_BT).image_BCHW
    read_BT = model.predictor(image_BCHW)[:, : len(treatments)] > 0
    binary_T = torch.tensor([treatment.kind == "binary" for treatment in treatments], device=t_new_BT.device)
    return ((read_BT == (t_new_BT > 0.5)) | ~binary_T).all(dim=1)


def pairing_loss(model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
    """P [B] of images in [0,1] with raw factual attributes under t'; its gradient reaches only the rotation.

    Raises:
        ValueError: the model has no pairing.
    """
    if model.pairing is None:
        raise ValueError("the model has no pairing")
    with torch.no_grad():
        _, z_BZ = model.encode(y_BCHW, x_BX, t_BT).central()
        old, new = model.prior_of(x_BX, t_BT).at(z_BZ), model.prior_of(x_BX, t_new_BT)
        eta_BZ = old.standardise(z_BZ)
        before_BCHW = contours(model.decode(z_BZ, t_BT, x_BX).structure_BCHW)
    _, z_new_BZ = carry(model.pairing(eta_BZ, t_BT, t_new_BT), old, new, model.latent_mask_width)
    after_BCHW = contours(model.decode(z_new_BZ, t_new_BT, x_BX).structure_BCHW)
    return (after_BCHW - before_BCHW).abs().flatten(1).mean(dim=1)
