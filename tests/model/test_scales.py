"""Latents on several scales: chained distributions, abduction scale by scale, gradients, refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from civae_core.config.effects import without_effect
from civae_core.config.schema import Config, ModelConfig
from civae_core.counterfactual import abduct, counterfactual, predict
from civae_core.errors import UsageError
from civae_core.model import IntactVAE
from civae_core.model.distributions import DiagonalNormal
from civae_core.noise_mask import latent_mask
from civae_core.objective import negative_elbo
from civae_core.penalties.arms import counterfactual_of
from civae_core.training import schedules

Photos = tuple[Tensor, Tensor, Tensor]
SCALES: dict[str, Any] = {"scales": [1, 4, 8], "scale_latents": 2, "pairing": "none"}
VECTOR, COARSE, FINE = slice(0, 4), slice(4, 36), slice(36, 164)
PARTS = (VECTOR, COARSE, FINE)
DECODERS = [{"decoder": "direct"}, {"decoder": "layered", "layers": 3}, {"place_latents": 0}]


@pytest.fixture
def scaled(make_model: Callable[..., IntactVAE]) -> Callable[..., IntactVAE]:
    """A perturbed model with z of 4 + 2·4² + 2·8² dimensions."""
    return lambda **values: make_model(perturbed=True, **SCALES | values)


def noise(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 164, generator=torch.Generator().manual_seed(seed))


def parts_of(z_BZ: Tensor) -> list[Tensor]:
    return [z_BZ[:, part] for part in PARTS]


def test_grids_have_a_beta_of_their_own(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(), photos()
    values = {"model": SCALES | {"latent": 4}, "loss": {"beta": 6.0, "beta_grids": 0.5, "beta_warmup": 100}}
    config = Config.model_validate({"data": {"path": "d", "treatment": "T"}} | values)
    output = model(y_BCHW, x_BX, t_BT, noise())
    nll = output.likelihood.training_loss(y_BCHW).mean()
    kl_Z = output.posterior.kl_by_dimension(output.prior).mean(dim=0)
    for images, rise in ((50, 0.5), (1_000, 1.0)):
        beta = schedules.betas(images, config, torch.device("cpu"))
        wanted = rise * (6.0 * kl_Z[VECTOR].sum() + 0.5 * kl_Z[4:].sum())
        loss = negative_elbo(y_BCHW, output, beta).loss
        torch.testing.assert_close(loss - nll, wanted, rtol=1e-3, atol=1e-3)
        floor = negative_elbo(y_BCHW, output, beta, free_bits=1e3).loss - nll
        torch.testing.assert_close(floor, torch.tensor(rise * 1e3 * (6 * 4 + 0.5 * 160)), rtol=1e-4, atol=0)
    assert schedules.betas(50, Config(data=config.data, loss=config.loss), torch.device("cpu")) == 3.0


@pytest.mark.parametrize("values", DECODERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_z_is_one_row_of_all_scales(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos], values: dict[str, Any], channels: int
) -> None:
    model = scaled(channels=channels, **values)
    y_BCHW, x_BX, t_BT = photos(channels=channels)
    output = model(y_BCHW, x_BX, t_BT, noise())
    assert model.latent == 164
    assert output.posterior.mean_BZ.shape == output.prior.log_std_BZ.shape == (4, 164)
    assert output.likelihood.mean_BCHW.shape == y_BCHW.shape


def test_each_scale_is_given_the_coarser_ones_and_no_other(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(), photos()
    for normal in (model.prior_of(x_BX, t_BT), model.encode(y_BCHW, x_BX, t_BT)):
        z_BZ = noise()
        before = normal.at(z_BZ)
        for changed, part in enumerate(PARTS):
            moved_BZ = z_BZ.clone()
            moved_BZ[:, part] += 1.0
            after = normal.at(moved_BZ)
            for which, other in enumerate(PARTS):
                same = torch.equal(before.part(other).mean_BZ, after.part(other).mean_BZ)
                assert same == (which <= changed), (which, changed)


def test_the_distributions_along_z_are_those_of_the_scales_one_by_one(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """The chain against each network asked by hand, and the KL against torch's, summed over scales."""
    model, (y_BCHW, x_BX, t_BT) = scaled(), photos()
    output = model(y_BCHW, x_BX, t_BT, noise())
    z_BZ = output.posterior.sample(noise())
    x_in, t_in = model.standardise_x(x_BX), model.standardise_t(t_BT)
    attributes_BA = torch.cat([t_in, x_in], dim=1)
    reading = model.encoder.bottom_up.read(y_BCHW, x_in, t_in)
    below = model.decoder.coarse(z_BZ[:, VECTOR], t_in, x_in)
    seen = model.encoder.detail((y_BCHW - below.mean_BCHW) / below.log_sigma.exp())
    expected = torch.zeros(4)
    sides = {
        "q": (model.encoder.grids, reading.vector, list(seen)),
        "p": (model.prior.grids, model.prior.vector(x_in, t_in), []),
    }
    found: dict[str, list[Normal]] = {"q": [], "p": []}
    for name, (network, first, features) in sides.items():
        normals, state = [first], None
        for count in (1, 2):
            normal, state = network.step(
                parts_of(z_BZ)[:count], state, network.condition(attributes_BA), features
            )
            normals.append(normal)
        found[name] = [Normal(normal.mean_BZ, normal.std_BZ) for normal in normals]
    for q, p in zip(found["q"], found["p"], strict=True):
        expected = expected + kl_divergence(q, p).sum(dim=1)
    torch.testing.assert_close(output.posterior.kl(output.prior), expected)
    terms = negative_elbo(y_BCHW, output, beta=3.0)
    nll_B = output.likelihood.training_loss(y_BCHW)
    torch.testing.assert_close(terms.loss, (nll_B + 3.0 * expected).mean())


def test_sampling_is_a_triangular_map_whose_slopes_are_the_scales(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """Hence the density of z under the prior is that of its noise, divided by the product of the k's."""
    model, (_, x_BX, t_BT) = scaled(decoder="direct"), photos(1)
    prior, eta_BZ = model.prior_of(x_BX, t_BT), noise(1)
    along, z_BZ = prior.draw(eta_BZ)
    torch.testing.assert_close(prior.standardise(z_BZ), eta_BZ, rtol=1e-4, atol=1e-4)
    jacobian_ZZ = torch.autograd.functional.jacobian(lambda e: prior.sample(e[None])[0], eta_BZ[0])
    torch.testing.assert_close(jacobian_ZZ.diagonal(), along.std_BZ[0])
    for row, part in enumerate(PARTS):
        for later in PARTS[row + 1 :]:
            assert jacobian_ZZ[part, later].abs().max() == 0
            assert jacobian_ZZ[later, part].abs().max() > 1e-6


@pytest.mark.parametrize("width", [None, 2.0])
@pytest.mark.parametrize("values", DECODERS)
def test_a_counterfactual_abducts_and_predicts_scale_by_scale(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos], values: dict[str, Any], width: float
) -> None:
    """(M5) and (M6) by hand: η under t given the coarser z, z' under t' given the coarser z'."""
    masks = {"latent_mask_width": width, "looks_mask_width": None, "noise_mask": "none"}
    model, (y_BCHW, x_BX, t_BT) = scaled(**masks, **values), photos()
    found = counterfactual(model, y_BCHW, x_BX, t_BT, 1 - t_BT)
    z_BZ = model.encode(y_BCHW, x_BX, t_BT).sample(torch.zeros(4, 164))
    z_new_BZ = torch.zeros(4, 164)
    for part in PARTS:
        old = model.prior_of(x_BX, t_BT).at(z_BZ).part(part)
        new = model.prior_of(x_BX, 1 - t_BT).at(z_new_BZ).part(part)
        eta_BZ = (z_BZ[:, part] - old.mean_BZ) / old.std_BZ
        z_new_BZ[:, part] = new.mean_BZ + new.std_BZ * latent_mask(old, new, width) * eta_BZ
    assert all((z_new_BZ - z_BZ)[:, part].abs().max() > 1e-3 for part in PARTS)
    mean_BCHW = model.decode(z_new_BZ, 1 - t_BT, x_BX).mean_BCHW
    torch.testing.assert_close(found.mean_BCHW, mean_BCHW)
    residual_BCHW = y_BCHW - model.decode(z_BZ, t_BT, x_BX).mean_BCHW
    torch.testing.assert_close(found.image_BCHW, mean_BCHW + residual_BCHW)


@pytest.mark.parametrize("prior", ["xt", "x", "standard"])
def test_a_null_intervention_returns_the_photograph(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos], prior: str
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(prior=prior), photos()
    found = counterfactual(model, y_BCHW, x_BX, t_BT, t_BT)
    torch.testing.assert_close(found.image_BCHW, y_BCHW, rtol=0, atol=1e-6)
    assert found.effect_BCHW.abs().max() == 0


@pytest.mark.parametrize("prior", ["x", "standard"])
def test_under_a_balanced_prior_no_scale_moves(
    scaled: Callable[..., IntactVAE],
    photos: Callable[..., Photos],
    monkeypatch: pytest.MonkeyPatch,
    prior: str,
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(prior=prior, decoder="direct"), photos()
    found = abduct(model, y_BCHW, x_BX, t_BT)
    decoded: list[Tensor] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, t, x: (decoded.append(z), decode(z, t, x))[1])
    changed = predict(model, found, 1 - t_BT)
    torch.testing.assert_close(decoded[0], found.z_BZ, rtol=1e-5, atol=1e-5)
    assert changed.effect_BCHW.abs().max() > 1e-3
    if prior == "standard":
        assert not list(model.prior.parameters())
        torch.testing.assert_close(found.eta_BZ, found.z_BZ)


@pytest.mark.parametrize("values", [*DECODERS, {"prior": "x"}])
def test_gradient_reaches_every_scale_of_prior_encoder_and_decoder(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos], values: dict[str, Any]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(predictor=False, **values), photos()
    negative_elbo(y_BCHW, model(y_BCHW, x_BX, t_BT, noise()), beta=1.0).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_fresh_prior_is_the_standard_normal_on_every_scale_and_learns(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = make_model(**SCALES), photos()
    prior = model.prior_of(x_BX, t_BT).at(noise())
    assert prior.mean_BZ.abs().max() == prior.log_std_BZ.abs().max() == 0
    negative_elbo(y_BCHW, model(y_BCHW, x_BX, t_BT, noise()), beta=1.0).loss.backward()
    for head in model.prior.grids.heads:
        assert head[-1].weight.grad.abs().max() > 0


def test_free_bits_are_of_every_dimension_of_every_scale(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model, (y_BCHW, x_BX, t_BT) = scaled(), photos()
    output = model(y_BCHW, x_BX, t_BT, noise())
    charged = negative_elbo(y_BCHW, output, beta=1.0, free_bits=1e3)
    nll = output.likelihood.training_loss(y_BCHW).mean()
    torch.testing.assert_close(charged.loss - nll, torch.tensor(164e3))


def test_every_grid_moves_the_image_where_it_lies(scaled: Callable[..., IntactVAE]) -> None:
    model = scaled(decoder="direct", norm="none", blocks=1)
    x_BX, t_BT = torch.tensor([[1.0, 40.0]]), torch.ones(1, 1)
    plain_BCHW = model.decode(torch.zeros(1, 164), t_BT, x_BX).mean_BCHW
    corner_BZ = torch.zeros(1, 164)
    corner_BZ[:, FINE].view(1, 2, 8, 8)[..., 0, 0] = 3.0
    change_HW = (model.decode(corner_BZ, t_BT, x_BX).mean_BCHW - plain_BCHW).abs().amax(dim=(0, 1))
    assert change_HW[:2, :2].max() > 1e-3
    assert change_HW[-6:, -6:].max() == 0, "the far corner is beyond its reach"


def test_penalties_ask_about_the_same_draw(
    scaled: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """A penalty decodes the counterfactual of the drawn z under t'; its latent is centred on that of the mean."""
    model, (y_BCHW, x_BX, t_BT) = scaled(noise_mask="none", looks_mask_width=None), photos()
    output = model(y_BCHW, x_BX, t_BT, noise())
    asked = torch.ones(4, 1, dtype=torch.bool)
    made = counterfactual_of(model, x_BX, 1 - t_BT, asked, output.posterior, output.prior, noise())
    drawn = abduct(model, y_BCHW, x_BX, t_BT, noise())
    torch.testing.assert_close(made.mean_BCHW, predict(model, drawn, 1 - t_BT, noise=0.0).mean_BCHW)
    central = counterfactual_of(
        model, x_BX, 1 - t_BT, asked, *_along_mean(model, *photos()), torch.zeros(4, 164)
    )
    torch.testing.assert_close(central.latent.mean_BZ, central.z_BZ)


def _along_mean(
    model: IntactVAE, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor
) -> tuple[DiagonalNormal, DiagonalNormal]:
    output = model(y_BCHW, x_BX, t_BT, torch.zeros(4, 164))
    return output.posterior, output.prior


def test_one_scale_is_the_vector(make_model: Callable[..., IntactVAE]) -> None:
    plain, one = make_model().state_dict(), make_model(scales=[1]).state_dict()
    assert plain.keys() == one.keys()
    assert all(torch.equal(plain[name], one[name]) for name in plain)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scales": [4, 8]}, "must begin with 1, the vector"),
        ({"scales": [1, 8, 4]}, "4 is not 8 doubled one or more times"),
        ({"scales": [1, 4, 12]}, "12 is not 4 doubled"),
        ({"scales": [1, 4, 4]}, "4 is not 4 doubled"),
        ({"scales": []}, "at least 1 item"),
        ({"scales": [1, 2, 4, 8, 16]}, "at most 4 items"),
        ({"scales": [1, 256]}, "262,208 dimensions, more than 65,536"),
        ({"scales": [1, 4], "prior_structure": "additive"}, "'additive' is for a z that is a vector"),
        ({"scales": [1, 4], "norm": "batch"}, "count the batch statistics of model.norm 'batch' twice"),
    ],
)
def test_scales_that_cannot_be_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config.model_validate({"data": {"path": "d", "treatment": "T"}, "model": values})


@pytest.mark.parametrize(("scales", "side"), [([1, 2], 2), ([1, 4, 16], 16)])
def test_a_scale_that_is_no_resolution_of_the_network_is_refused(
    make_model: Callable[..., IntactVAE], scales: list[int], side: int
) -> None:
    with pytest.raises(
        UsageError, match=rf"model\.scales: {side} is not a .* 2 stages reduce 16 px to 4, 8$"
    ):
        make_model(scales=scales)


def test_latents_of_a_grid_that_is_not_there_have_no_effect() -> None:
    config = Config.model_validate(
        {"data": {"path": "d", "treatment": "T"}, "model": {"scale_latents": 2}, "objective": "cvae"}
    )
    assert "model.scale_latents has no effect: model.scales has no grid" in without_effect(config)
    assert ModelConfig(latent=9, scales=[1, 4], scale_latents=3).dimensions == 9 + 48
