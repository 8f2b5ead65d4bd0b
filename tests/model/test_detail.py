"""Fine detail on layers: it knows no treatment, holds nothing coarse, and lets what is below learn as without it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.counterfactual import abduct, predict
from civae_core.model import IntactVAE
from civae_core.model.decoder import PixelNormal
from civae_core.model.detail import DetailedDecoder, without_means
from civae_core.noise_mask import noise_mask
from civae_core.objective import negative_elbo

Photos = tuple[Tensor, Tensor, Tensor]
VECTOR, GRIDS = 4, 2 * 4**2 + 2 * 8**2


@pytest.fixture
def detailed(make_model: Callable[..., IntactVAE]) -> Callable[..., IntactVAE]:
    """A perturbed model with layers of a vector and detail of two grids."""
    return lambda **values: make_model(
        perturbed=True, **{"scales": [1, 4, 8], "scale_latents": 2, "decoder": "layered"} | values
    )


def drawn(model: IntactVAE, count: int = 4) -> Tensor:
    return torch.randn(count, model.latent, generator=torch.Generator().manual_seed(1))


def test_detail_is_the_same_under_every_treatment_and_of_grids_alone(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (_, x_BX, t_BT) = detailed(), photos()
    z_BZ = drawn(model)
    assert z_BZ.shape[1] == VECTOR + GRIDS

    def detail(z_BZ: Tensor, t_BT: Tensor) -> Tensor:
        found = model.decode(z_BZ, t_BT, x_BX)
        return found.mean_BCHW - found.structure_BCHW

    once = detail(z_BZ, t_BT)
    assert once.abs().max() > 1e-3
    torch.testing.assert_close(detail(z_BZ, 1 - t_BT), once, atol=1e-6, rtol=0)
    other_BZ = torch.cat([-z_BZ[:, :VECTOR], z_BZ[:, VECTOR:]], dim=1)
    torch.testing.assert_close(detail(other_BZ, t_BT), once, atol=1e-6, rtol=0)
    finer_BZ = torch.cat([z_BZ[:, :VECTOR], -z_BZ[:, VECTOR:]], dim=1)
    assert (detail(finer_BZ, t_BT) - once).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"scales": None}, {"sigma": "pixel", "x_in_decoder": False}])
def test_other_looks_are_painted_on_the_same_places(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos], settings: dict[str, Any]
) -> None:
    model, (_, x_BX, t_BT) = detailed(**settings), photos()
    assert model.looks == slice(2, VECTOR)
    z_BZ = drawn(model)
    other_BZ = torch.cat([z_BZ[:, :2], -z_BZ[:, 2:]], dim=1)
    found, other_BCHW = model.decode_with_other_looks(z_BZ, other_BZ, t_BT, x_BX)
    whole, wanted = (model.decode(part, t_BT, x_BX) for part in (z_BZ, other_BZ))
    for name in ("mean_BCHW", "structure_BCHW", "log_sigma"):
        assert torch.equal(getattr(found, name), getattr(whole, name)), name
    assert torch.equal(other_BCHW, wanted.structure_BCHW)
    assert (other_BCHW - found.structure_BCHW).abs().max() > 1e-3


def test_what_is_flat_over_windows_is_taken_out_and_texture_stays() -> None:
    flat = torch.full((1, 3, 32, 32), 0.7)
    assert without_means(flat).abs().max() < 1e-6
    slope = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert without_means(slope)[..., 4:-4].abs().max() < 0.01, "slopes belong to what is below"
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 3, 32, 32)
    torch.testing.assert_close(without_means(stripes), stripes)


def test_what_is_below_learns_as_if_there_were_no_detail(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """The gradients of all weights but the detail's own equal those of the ELBO of the vector alone."""
    model, (y_BCHW, x_BX, t_BT) = detailed(predictor=False), photos()
    noise_BZ = drawn(model)
    own = ("decoder.detail", "decoder.log_sigma", "encoder.detail", "encoder.grids", "prior.grids")

    def gradients(loss: Tensor) -> dict[str, Tensor | None]:
        model.zero_grad()
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if not name.startswith(own)}

    whole = gradients(negative_elbo(y_BCHW, model(y_BCHW, x_BX, t_BT, noise_BZ), beta=2.0).loss)
    output = model(y_BCHW, x_BX, t_BT, noise_BZ)
    vector = slice(0, VECTOR)
    kl_B = output.posterior.part(vector).kl(output.prior.part(vector))
    coarse = output.likelihood.coarse
    assert coarse is not None
    alone = gradients((coarse.negative_log_likelihood(y_BCHW) + 2.0 * kl_B).mean())
    assert len(alone) > 20
    for name, gradient in alone.items():
        assert gradient is not None, name
        other, most = whole[name], float(gradient.abs().max())  # sums are as exact as what is summed is large
        assert other is not None, name
        assert float((other - gradient).abs().max()) <= 1e-4 * (1 + most), name


def test_detail_learns_from_what_is_left_of_the_image(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = detailed(predictor=False), photos()
    output = model(y_BCHW, x_BX, t_BT, drawn(model))
    negative_elbo(y_BCHW, output, beta=1.0).loss.backward()
    for part in (model.decoder.detail, model.encoder.detail, model.encoder.grids, model.prior.grids):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_grids_are_read_off_what_is_left_of_the_image(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """If the vector explains every pixel of an image, its grids are those of a zero residual, whatever it shows."""
    model, (_, x_BX, t_BT) = detailed(), photos()
    z_BZ = drawn(model)
    own_BCHW = model.decode(z_BZ, t_BT, x_BX).structure_BCHW
    found = model.encode(own_BCHW, x_BX, t_BT).at(z_BZ).part(slice(VECTOR, None))
    network, none_left = model.encoder.grids, model.encoder.detail(torch.zeros_like(own_BCHW))
    attributes_BA = torch.cat([model.standardise_t(t_BT), model.standardise_x(x_BX)], dim=1)
    wanted, _ = network.step([z_BZ[:, :VECTOR]], None, network.condition(attributes_BA), none_left)
    torch.testing.assert_close(found.part(slice(0, 32)).mean_BZ, wanted.mean_BZ, rtol=1e-3, atol=1e-3)
    assert (
        model.encode(own_BCHW + 0.2, x_BX, t_BT).at(z_BZ).part(slice(VECTOR, None)).mean_BZ - found.mean_BZ
    ).any()


def test_an_answer_is_painted_anew_and_its_detail_fades_where_that_changed(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """(M6) by hand: y' = g' + m·(H d' + τ·e), where m depends on g' − g alone."""
    unmasked = dict.fromkeys(["latent_mask_width", "looks_mask_width"])
    model, (y_BCHW, x_BX, t_BT) = detailed(**unmasked, pairing="none", mask_width=0.05), photos()
    abduction = abduct(model, y_BCHW, x_BX, t_BT)
    found = predict(model, abduction, 1 - t_BT)
    z_new_BZ = model.prior_of(x_BX, 1 - t_BT).sample(abduction.eta_BZ)
    new, old = model.decode(z_new_BZ, 1 - t_BT, x_BX), abduction.reconstruction
    kept = noise_mask(new.structure_BCHW - old.structure_BCHW, "fade", 0.05)
    assert kept.min() < 0.9 < kept.max()
    mean_BCHW = new.structure_BCHW + kept * (new.mean_BCHW - new.structure_BCHW)
    torch.testing.assert_close(found.mean_BCHW, mean_BCHW, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        found.image_BCHW, mean_BCHW + kept * abduction.residual_BCHW, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found.effect_BCHW, mean_BCHW - old.mean_BCHW, atol=1e-5, rtol=1e-4)
    null = predict(model, abduction, t_BT)
    torch.testing.assert_close(null.image_BCHW, y_BCHW, rtol=0, atol=1e-6)
    assert null.effect_BCHW.abs().max() < 1e-6


def test_the_loss_counts_both_and_the_bound_only_the_whole() -> None:
    y_BCHW = torch.full((2, 1, 4, 4), 0.5)
    coarse = PixelNormal(torch.full_like(y_BCHW, 0.3), torch.zeros(()))
    whole = PixelNormal(torch.full_like(y_BCHW, 0.4), torch.zeros(()), coarse)
    both = whole.negative_log_likelihood(y_BCHW) + coarse.negative_log_likelihood(y_BCHW)
    torch.testing.assert_close(whole.training_loss(y_BCHW), both)
    torch.testing.assert_close(coarse.training_loss(y_BCHW), coarse.negative_log_likelihood(y_BCHW))
    assert torch.equal(whole.structure_BCHW, coarse.mean_BCHW)


@pytest.mark.parametrize("values", [{"sigma": "pixel"}, {"sigma": "channel"}, {"sigma": "fixed"}])
def test_detail_goes_with_every_kind_of_sigma(
    detailed: Callable[..., IntactVAE], photos: Callable[..., Photos], values: dict[str, Any]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = detailed(**values), photos()
    assert isinstance(model.decoder, DetailedDecoder)
    found = model(y_BCHW, x_BX, t_BT, drawn(model)).likelihood
    assert found.training_loss(y_BCHW).isfinite().all()
