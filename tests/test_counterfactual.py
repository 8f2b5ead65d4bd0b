"""Abduct, act, predict (M5, M6): what must hold for any weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.counterfactual import (
    Abduction,
    abduct,
    abduct_at,
    counterfactual,
    predict,
)
from civae_core.model import IntactVAE, PixelNormal

Model = Callable[..., IntactVAE]
Photos = Callable[..., tuple[Tensor, Tensor, Tensor]]

PRIORS = ["xt", "x", "standard"]
SIGMAS = ["scalar", "channel", "pixel", "fixed"]
DECODERS: dict[str, dict[str, Any]] = {
    "layered": {},
    "film": {"decoder": "direct"},
    "concat": {"decoder": "direct", "treatment_input": "concat"},
    "original": {"network": "original"},
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("way", DECODERS)
def test_a_null_intervention_returns_the_photograph(
    make_model: Model, photos: Photos, prior: str, sigma: str, way: str
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior=prior, sigma=sigma, perturbed=True, **DECODERS[way])
    result = counterfactual(model, y_BCHW, x_BX, t_BT, t_BT.clone(), noise=1.0)
    torch.testing.assert_close(result.image_BCHW, y_BCHW, rtol=0, atol=2e-6)
    assert torch.equal(result.effect_BCHW, torch.zeros_like(y_BCHW))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("way", DECODERS)
def test_the_counterfactual_depends_on_the_treatment(
    make_model: Model, photos: Photos, prior: str, way: str
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior=prior, perturbed=True, **DECODERS[way])
    result = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT)
    assert (result.effect_BCHW.abs().amax(dim=(1, 2, 3)) > 1e-3).all()
    further = counterfactual(model, y_BCHW, x_BX, t_BT, 3 * (1 - t_BT) - 1)
    assert not torch.allclose(further.image_BCHW, result.image_BCHW)


def test_a_batch_may_mix_null_and_real_interventions(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(perturbed=True)
    result = counterfactual(model, y_BCHW, x_BX, t_BT, torch.zeros_like(t_BT))
    unchanged_B = t_BT[:, 0] == 0
    torch.testing.assert_close(result.image_BCHW[unchanged_B], y_BCHW[unchanged_B], rtol=0, atol=2e-6)
    assert (result.effect_BCHW[~unchanged_B].abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def spy_on_z(model: IntactVAE, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    seen: list[Tensor] = []
    decode = model.decode

    def spy(z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        seen.append(z_BZ.clone())
        return decode(z_BZ, t_BT, x_BX)

    monkeypatch.setattr(model, "decode", spy)
    return seen


@pytest.mark.parametrize(("prior", "moves"), [("x", False), ("standard", False), ("xt", True)])
def test_z_moves_only_where_the_prior_knows_the_treatment(
    make_model: Model, photos: Photos, monkeypatch: pytest.MonkeyPatch, prior: str, moves: bool
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior=prior, perturbed=True, latent_mask_width=None, looks_mask_width=None)
    seen = spy_on_z(model, monkeypatch)
    counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT)
    z_BZ, z_new_BZ = seen
    torch.testing.assert_close(z_BZ, model.encode(y_BCHW, x_BX, t_BT).mean_BZ)
    if not moves:
        torch.testing.assert_close(z_new_BZ, z_BZ, rtol=1e-5, atol=1e-6)
        return
    old, new = model.prior_of(x_BX, t_BT), model.prior_of(x_BX, 1 - t_BT)
    eta_BZ = model.paired((z_BZ - old.mean_BZ) / old.std_BZ, t_BT, 1 - t_BT)
    torch.testing.assert_close(z_new_BZ, new.mean_BZ + new.std_BZ * eta_BZ)
    assert (z_new_BZ - z_BZ).abs().max() > 1e-2


def test_there_and_back_in_latent_space_is_exact_with_the_balanced_prior(
    make_model: Model, photos: Photos
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior="x", perturbed=True, noise_mask="none")
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    there = predict(model, abduction, 1 - t_BT)
    back = predict(model, abduct_at(model, there.image_BCHW, x_BX, 1 - t_BT, abduction.z_BZ), t_BT)
    torch.testing.assert_close(back.image_BCHW, y_BCHW, rtol=0, atol=1e-5)


def test_noise_is_linear_between_the_mean_and_the_whole_residual(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(sigma="pixel", perturbed=True)
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    none, some, whole = (predict(model, abduction, 1 - t_BT, noise=tau) for tau in (0.0, 0.25, 1.0))
    assert torch.equal(none.image_BCHW, none.mean_BCHW)
    torch.testing.assert_close(some.image_BCHW, 0.75 * none.image_BCHW + 0.25 * whole.image_BCHW)
    assert torch.equal(none.mean_BCHW, whole.mean_BCHW)


def test_without_noise_the_image_is_the_decoders_mean(
    make_model: Model, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(perturbed=True, looks_mask_width=None)
    seen = spy_on_z(model, monkeypatch)
    image_BCHW = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT, noise=0.0).image_BCHW
    mean_BCHW = model.decoder(seen[1], 1 - 2 * t_BT, model.standardise_x(x_BX)).mean_BCHW
    torch.testing.assert_close(image_BCHW, mean_BCHW)


@pytest.mark.parametrize("sigma", ["scalar", "channel", "fixed"])
def test_without_a_mask_the_image_is_the_photograph_plus_the_effect(
    make_model: Model, photos: Photos, sigma: str
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(sigma=sigma, perturbed=True, noise_mask="none")
    result = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT)
    torch.testing.assert_close(result.image_BCHW, y_BCHW + result.effect_BCHW)


def test_strength_scales_the_effect_and_nothing_else(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(perturbed=True, noise_mask="none")
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    one = predict(model, abduction, 1 - t_BT)
    for strength in (0.0, 0.5, 2.0):
        scaled = predict(model, abduction, 1 - t_BT, strength=strength)
        torch.testing.assert_close(scaled.image_BCHW, y_BCHW + strength * one.effect_BCHW)
        mean_BCHW = abduction.reconstruction.mean_BCHW + strength * one.effect_BCHW
        torch.testing.assert_close(scaled.mean_BCHW, mean_BCHW)
        assert torch.equal(scaled.effect_BCHW, one.effect_BCHW)


def test_per_pixel_sigma_rescales_the_residual(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(sigma="pixel", perturbed=True, noise_mask="none", latent_mask_width=None)
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    result = predict(model, abduction, 1 - t_BT)
    new = model.prior_of(x_BX, 1 - t_BT).sample(abduction.eta_BZ)
    ratio_BCHW = (
        model.decode(new, 1 - t_BT, x_BX).log_sigma.exp() / abduction.reconstruction.log_sigma.exp()
    ).detach()
    assert (ratio_BCHW - 1).abs().max() > 1e-3
    torch.testing.assert_close(
        result.image_BCHW - result.mean_BCHW, ratio_BCHW * abduction.residual_BCHW, rtol=1e-4, atol=1e-5
    )


def test_the_abducted_noises_rebuild_the_photograph(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(perturbed=True)
    noise_BZ = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    at_mean, drawn = abduct(model, y_BCHW, x_BX, t_BT), abduct(model, y_BCHW, x_BX, t_BT, noise_BZ)
    torch.testing.assert_close(drawn.z_BZ, model.encode(y_BCHW, x_BX, t_BT).sample(noise_BZ))
    assert not torch.allclose(drawn.z_BZ, at_mean.z_BZ)
    for abduction in (at_mean, drawn):
        rebuilt_BCHW = abduction.reconstruction.mean_BCHW + abduction.residual_BCHW
        torch.testing.assert_close(rebuilt_BCHW, y_BCHW, rtol=0, atol=2e-6)
        torch.testing.assert_close(model.prior_of(x_BX, t_BT).sample(abduction.eta_BZ), abduction.z_BZ)


def spy_on_treatments(model: IntactVAE) -> list[Tensor]:
    """Standardised treatments that the encoder network itself is given."""
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[2].clone()))
    return seen


@pytest.mark.parametrize("prior", PRIORS)
def test_the_encoder_never_sees_the_intended_treatment(make_model: Model, photos: Photos, prior: str) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior=prior, perturbed=True)
    seen = spy_on_treatments(model)
    counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT)
    assert len(seen) == 1
    assert torch.equal(seen[0], 2 * t_BT - 1)


def test_the_originals_inference_does_show_it_the_intended_treatment(
    make_model: Model, photos: Photos
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior="standard", perturbed=True)
    seen = spy_on_treatments(model)
    counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT, objective="original")
    assert [torch.equal(t, 1 - 2 * t_BT) for t in seen] == [False, True]


def test_the_originals_inference_by_its_definition(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior="standard", perturbed=True)
    wrong_BZ = model.encode(y_BCHW, x_BX, 1 - t_BT).mean_BZ
    mean_BCHW = model.decode(wrong_BZ, 1 - t_BT, x_BX).mean_BCHW.detach()
    without = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT, noise=0.0, objective="original")
    torch.testing.assert_close(without.image_BCHW, mean_BCHW)
    twice = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT, strength=2.0, objective="original")
    torch.testing.assert_close(twice.image_BCHW, y_BCHW + 2 * without.effect_BCHW)
    null = counterfactual(model, y_BCHW, x_BX, t_BT, t_BT, objective="original")
    torch.testing.assert_close(null.image_BCHW, y_BCHW, rtol=0, atol=2e-6)


def test_each_of_several_treatments_acts_on_its_own(make_model: Model) -> None:
    several = AttributeRoles(
        treatments=(
            Attribute("Young", "binary"),
            Attribute("Dose", "continuous", low=0.0, high=9.0, mean=3.0, std=2.0),
        ),
        covariates=(),
    )
    model = make_model(assigned=several, perturbed=True)
    y_BCHW, x_BX = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 0)
    t_BT = torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    images = [
        predict(model, abduction, t_BT + torch.tensor(change)).image_BCHW
        for change in ([0.0, 0.0], [1.0, 0.0], [0.0, 0.5], [1.0, 0.5])
    ]
    torch.testing.assert_close(images[0], y_BCHW, rtol=0, atol=2e-6)
    for i, first in enumerate(images):
        for second in images[i + 1 :]:
            assert (first - second).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_counterfactuals_keep_no_graph(make_model: Model, photos: Photos) -> None:
    y_BCHW, x_BX, t_BT = photos(2)
    model = make_model()
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    assert isinstance(abduction, Abduction)
    assert not abduction.z_BZ.requires_grad
    assert not predict(model, abduction, 1 - t_BT).image_BCHW.requires_grad


def test_strength_zero_changes_nothing_with_a_per_pixel_sigma_either(
    make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    y_BCHW, x_BX, t_BT = photos()
    model = make_model(sigma="pixel", perturbed=True).eval()
    found = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT, strength=0.0)
    assert torch.allclose(found.image_BCHW, y_BCHW, atol=1e-5)
