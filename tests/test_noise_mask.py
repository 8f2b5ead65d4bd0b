"""The masks of (M6): what fades where, and what they must leave alone."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from civae_core.config.schema import ModelConfig
from civae_core.counterfactual import Abduction, abduct, predict
from civae_core.model import IntactVAE
from civae_core.model.distributions import DiagonalNormal
from civae_core.noise_mask import latent_mask, noise_mask, without

Model = Callable[..., IntactVAE]
Photos = Callable[[int], tuple[Tensor, Tensor, Tensor]]


def test_the_fade_follows_the_largest_change_over_channels() -> None:
    effect_BCHW = torch.zeros(1, 3, 1, 3)
    effect_BCHW[0, 1, 0, 1] = -0.08
    effect_BCHW[0, 2, 0, 2] = 0.16
    m_B1HW = noise_mask(effect_BCHW, "fade", width=0.08)
    torch.testing.assert_close(m_B1HW[0, 0, 0], torch.tensor([1.0, math.exp(-1), math.exp(-4)]))


def test_without_a_mask_all_noise_stays() -> None:
    assert torch.equal(noise_mask(torch.randn(2, 3, 4, 4), "none", width=0.08), torch.ones(2, 1, 4, 4))


def test_the_prediction_holds_what_the_mask_leaves_of_the_noise(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    masked = make_model(perturbed=True, noise_mask="fade", mask_width=0.05)
    abduction = abduct(masked, y_BCHW, x_BX, t_BT)
    result = predict(masked, abduction, 1 - t_BT)
    m_B1HW = torch.exp(-((result.effect_BCHW.abs().amax(1, keepdim=True) / 0.05) ** 2))
    assert m_B1HW.min() < 0.9
    expected_BCHW = result.mean_BCHW + m_B1HW * abduction.residual_BCHW
    torch.testing.assert_close(result.image_BCHW, expected_BCHW)


def test_a_null_intervention_keeps_every_pixel_under_the_mask(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    model = make_model(perturbed=True, noise_mask="fade")
    result = predict(model, abduct(model, y_BCHW, x_BX, t_BT), t_BT)
    torch.testing.assert_close(result.image_BCHW, y_BCHW, rtol=0, atol=1e-6)


def test_a_scaled_effect_is_masked_by_what_is_painted(make_model: Model, photos: Photos) -> None:
    """At strength 0 no change is painted, so nothing may fade."""
    y_BCHW, x_BX, t_BT = photos(2)
    model = make_model(perturbed=True, noise_mask="fade")
    result = predict(model, abduct(model, y_BCHW, x_BX, t_BT), 1 - t_BT, strength=0.0)
    torch.testing.assert_close(result.image_BCHW, y_BCHW, rtol=0, atol=1e-6)


def test_a_latent_noise_fades_with_the_shift_of_its_prior_in_standard_deviations() -> None:
    old = DiagonalNormal(torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    new = DiagonalNormal(torch.tensor([[0.0, 2.0, -4.0, 2 * math.e]]), torch.zeros(1, 4))
    rho_BZ = latent_mask(old, new, width=2.0)
    torch.testing.assert_close(rho_BZ, torch.tensor([[1.0, math.exp(-1), math.exp(-4), math.exp(-1)]]))
    assert torch.equal(latent_mask(old, new, width=None), torch.ones(1, 4))


def test_the_predicted_latent_holds_what_its_mask_leaves(
    make_model: Model, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    model = make_model(prior="xt", perturbed=True, latent_mask_width=0.1, looks_mask_width=None)
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    seen: list[Tensor] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, t, x: (seen.append(z), decode(z, t, x))[1])
    predict(model, abduction, 1 - t_BT)
    old, new = model.prior_of(x_BX, t_BT), model.prior_of(x_BX, 1 - t_BT)
    shift_BZ = (new.mean_BZ - old.mean_BZ).abs() / torch.maximum(new.std_BZ, old.std_BZ)
    rho_BZ = torch.exp(-((shift_BZ / 0.1) ** 2))
    assert rho_BZ.min() < 0.5
    eta_BZ = model.paired(abduction.eta_BZ, t_BT, 1 - t_BT)
    torch.testing.assert_close(seen[0], new.mean_BZ + new.std_BZ * rho_BZ * eta_BZ)


def test_with_a_balanced_prior_no_latent_noise_fades(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    plain, masked = (make_model(prior="x", perturbed=True, latent_mask_width=w) for w in (None, 0.1))
    images = [predict(m, abduct(m, y_BCHW, x_BX, t_BT), 1 - t_BT).image_BCHW for m in (plain, masked)]
    torch.testing.assert_close(*images)


def test_looks_are_carried_where_the_image_stays_and_are_typical_where_it_changes(
    make_model: Model, photos: Photos
) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    model = make_model(perturbed=True, latent_mask_width=None, noise_mask="none")
    abduction = abduct(model, y_BCHW, x_BX, t_BT)

    def mean(width: float | None, abducted: Abduction = abduction) -> Tensor:
        model.looks_mask_width = width
        return predict(model, abducted, 1 - t_BT).mean_BCHW

    carried_BCHW = mean(None)
    typical_BCHW = mean(None, replace(abduction, eta_BZ=without(abduction.eta_BZ, slice(2, 4))))
    assert (carried_BCHW - typical_BCHW).abs().max() > 0.01
    change_BCHW = carried_BCHW - abduction.reconstruction.mean_BCHW
    own_B1HW = torch.exp(-((change_BCHW.abs().amax(1, keepdim=True) / 0.05) ** 2))
    assert 0.1 < own_B1HW.mean() < 0.9
    torch.testing.assert_close(mean(0.05), own_B1HW * carried_BCHW + (1 - own_B1HW) * typical_BCHW)
    torch.testing.assert_close(mean(1e9), carried_BCHW)
    torch.testing.assert_close(mean(1e-9), typical_BCHW)


def test_what_places_layers_is_carried_everywhere() -> None:
    eta_BZ = torch.tensor([[1.0, -2.0, 3.0]])
    assert without(eta_BZ, slice(1, 3)).tolist() == [[1.0, 0.0, 0.0]]
    assert ModelConfig(latent=6, place_latents=4).looks == slice(4, 6)
    for undivided in ({"place_latents": 0}, {"decoder": "direct"}, {"prior": "x"}):
        assert ModelConfig(**undivided).looks is None


def test_a_null_intervention_keeps_every_pixel_with_looks_masked(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(3)
    model = make_model(perturbed=True, looks_mask_width=0.02)
    result = predict(model, abduct(model, y_BCHW, x_BX, t_BT), t_BT)
    torch.testing.assert_close(result.image_BCHW, y_BCHW, rtol=0, atol=1e-6)
