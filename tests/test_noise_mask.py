"""The mask m of (M6): what fades where, and what it must leave alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from civae_core.counterfactual import abduct, predict
from civae_core.model import IntactVAE
from civae_core.noise_mask import noise_mask

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
    """Strength 0 paints no change, so nothing may fade."""
    y_BCHW, x_BX, t_BT = photos(2)
    model = make_model(perturbed=True, noise_mask="fade")
    result = predict(model, abduct(model, y_BCHW, x_BX, t_BT), 1 - t_BT, strength=0.0)
    torch.testing.assert_close(result.image_BCHW, y_BCHW, rtol=0, atol=1e-6)
