"""Subjects from the prior: their noise is rotated from arm to arm, and the prior of each arm stays the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.counterfactual import abduct_at, predict
from civae_core.draws import decode_prior, latents_from_prior
from civae_core.model import IntactVAE

UNMASKED: dict[str, Any] = {"latent_mask_width": None, "looks_mask_width": None, "noise_mask": "none"}
AGE = Attribute("Age", "continuous", low=20.0, high=80.0, mean=40.0, std=15.0)
TWO = AttributeRoles((Attribute("Young", "binary"), AGE), (Attribute("Male", "binary"),))
MakeModel = Callable[..., IntactVAE]
Photos = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def noise(count: int, model: IntactVAE) -> torch.Tensor:
    return torch.randn(count, model.latent, generator=torch.Generator().manual_seed(5))


def turned_anyhow(model: IntactVAE) -> IntactVAE:
    assert model.pairing is not None
    model.pairing.free_TLL.normal_(generator=torch.Generator().manual_seed(6))
    return model


@pytest.mark.parametrize("dose", [0.0, 0.25, 1.0])
def test_z_of_each_arm_is_that_of_the_noise_turned_from_the_subjects_own(
    make_model: MakeModel, photos: Photos, dose: float
) -> None:
    model = turned_anyhow(make_model(perturbed=True))
    _, x, own = photos(4)
    eta, t = noise(4, model), torch.full((4, 1), dose)
    assert model.pairing is not None
    turned = eta.clone()
    (free,) = model.pairing.free_TLL
    for row, step in enumerate((dose - own[:, 0]).tolist()):
        rotation = torch.linalg.matrix_exp(step * (free - free.T))
        turned[row, model.pairing.turned] = rotation @ eta[row, model.pairing.turned]
    prior = model.prior_of(x, t).central()[0]
    found = latents_from_prior(model, x, t, eta, own)
    torch.testing.assert_close(found, prior.mean_BZ + prior.std_BZ * turned, atol=1e-4, rtol=0)
    assert (turned - eta).abs().max() > 0.1


def test_draws_of_an_arm_have_its_prior_s_mean_and_covariance_whatever_their_own(
    make_model: MakeModel, photos: Photos
) -> None:
    model = turned_anyhow(make_model(perturbed=True))
    count = 20_000
    x, own = (row[1:2].expand(count, -1) for row in photos(2)[1:])
    t = torch.zeros(count, 1)
    z = latents_from_prior(model, x, t, noise(count, model), own)
    prior = model.prior_of(x[:1], t[:1]).central()[0]
    found = (z - prior.mean_BZ) / prior.std_BZ
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(model.latent), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(model.latent), atol=0.05, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"scales": [1, 4], "scale_latents": 2, "decoder": "layered"}])
def test_a_drawn_subject_changes_as_its_photograph_would_but_for_masks(
    make_model: MakeModel, settings: dict[str, Any]
) -> None:
    """With two treatments, whose rotations do not add up, one reference arm for all subjects would not suffice."""
    model = turned_anyhow(make_model(perturbed=True, assigned=TWO, **UNMASKED, **settings))
    x, own = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0, 70.0], [0.0, 35.0]])
    t = torch.tensor([[0.0, 70.0], [1.0, 20.0]])
    eta = noise(2, model)
    photograph = decode_prior(model, x, own, eta)
    abduction = abduct_at(model, photograph, x, own, model.prior_of(x, own).sample(eta))
    wanted = predict(model, abduction, t).mean_BCHW
    found = decode_prior(model, x, t, eta, own)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - decode_prior(model, x, t, eta)).abs().max() > 1e-3


@pytest.mark.parametrize("pairing", ["contours", "none"])
def test_where_nothing_turns_draws_are_to_the_bit_what_the_noise_gives(
    make_model: MakeModel, photos: Photos, pairing: str
) -> None:
    model = make_model(perturbed=True, pairing=pairing)
    _, x, t = photos(3)
    eta = noise(3, model)
    plain = model.decode(model.prior_of(x, t).sample(eta), t, x).mean_BCHW
    own = t if pairing == "contours" else 1 - t
    assert torch.equal(decode_prior(model, x, t, eta, own), plain)
    assert torch.equal(decode_prior(model, x, t, eta), plain)
