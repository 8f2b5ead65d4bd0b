"""Encoder, decoder and prior joined: raw attribute units, roles, gradients, refusals."""

from collections.abc import Callable

import pytest
import torch

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.errors import UsageError
from civae_core.model import IntactVAE
from civae_core.objective import negative_elbo

Photos = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_pass_has_the_shapes_of_its_input(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos], size: int, channels: int
) -> None:
    model = make_model(size, channels)
    y_BCHW, x_BX, t_BT = photos(2, size, channels)
    output = model(y_BCHW, x_BX, t_BT, torch.zeros(2, model.latent))
    assert output.posterior.mean_BZ.shape == output.prior.mean_BZ.shape == (2, 4)
    assert output.likelihood.mean_BCHW.shape == y_BCHW.shape
    assert output.predicted_BA is not None
    assert output.predicted_BA.shape == (2, 3)


def test_several_treatments_and_no_covariates(make_model: Callable[..., IntactVAE]) -> None:
    several = AttributeRoles(
        treatments=(
            Attribute("Young", "binary"),
            Attribute("Dose", "continuous", low=0.0, high=9.0, mean=3.0, std=2.0),
            Attribute("Smiling", "binary"),
        ),
        covariates=(),
    )
    model = make_model(assigned=several, perturbed=True)
    t_BT = torch.tensor([[1.0, 5.0, 0.0], [0.0, 1.0, 1.0]])
    output = model(torch.rand(2, 3, 16, 16), torch.zeros(2, 0), t_BT, torch.zeros(2, 4))
    assert output.likelihood.mean_BCHW.shape == (2, 3, 16, 16)
    assert model.standardise_t(t_BT).tolist() == [[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]


def test_attributes_are_raw_outside_and_standardised_inside(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    model = make_model(perturbed=True)
    x_BX = torch.tensor([[0.0, 40.0], [1.0, 60.0]])
    assert model.standardise_x(x_BX).tolist() == [[-1.0, 0.0], [1.0, 2.0]]
    y_BCHW, x_BX, t_BT = photos(4)
    inner = model.encoder(y_BCHW, model.standardise_x(x_BX), 2 * t_BT - 1)
    assert torch.equal(model.encode(y_BCHW, x_BX, t_BT).mean_BZ, inner.mean_BZ)
    inner_prior = model.prior(model.standardise_x(x_BX), 2 * t_BT - 1)
    assert torch.equal(model.prior_of(x_BX, t_BT).mean_BZ, inner_prior.mean_BZ)
    inner_image = model.decoder(inner.mean_BZ, 2 * t_BT - 1, model.standardise_x(x_BX))
    assert torch.equal(model.decode(inner.mean_BZ, t_BT, x_BX).mean_BCHW, inner_image.mean_BCHW)


def test_units_of_a_continuous_attribute_do_not_matter(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    def with_age_in(unit: float) -> AttributeRoles:
        age = Attribute("Age", "continuous", mean=40 * unit, std=10 * unit)
        return AttributeRoles((Attribute("Young", "binary"),), (Attribute("Male", "binary"), age))

    y_BCHW, x_BX, t_BT = photos(4)
    in_months_BX = x_BX * torch.tensor([1.0, 12.0])
    years = make_model(assigned=with_age_in(1), perturbed=True).encode(y_BCHW, x_BX, t_BT)
    months = make_model(assigned=with_age_in(12), perturbed=True).encode(y_BCHW, in_months_BX, t_BT)
    torch.testing.assert_close(years.mean_BZ, months.mean_BZ)


@pytest.mark.parametrize(("size", "stages"), [(30, [1, 2]), (20, [1, 2, 4]), (2, [1, 2])])
def test_an_image_size_that_does_not_divide_is_refused(
    make_model: Callable[..., IntactVAE], size: int, stages: list[int]
) -> None:
    with pytest.raises(UsageError, match=rf"model\.stages: .*{2 ** len(stages)}, not {size}$") as caught:
        make_model(size, stages=stages)
    assert caught.value.hint


@pytest.mark.parametrize("prior", ["xt", "x", "standard"])
def test_a_learned_prior_receives_gradient(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos], prior: str
) -> None:
    model = make_model(prior=prior, perturbed=True)
    y_BCHW, x_BX, t_BT = photos(4)
    noise_BZ = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    negative_elbo(y_BCHW, model(y_BCHW, x_BX, t_BT, noise_BZ), beta=1.0).loss.backward()
    gradients = [parameter.grad for parameter in model.prior.parameters()]
    if prior == "standard":
        assert gradients == []
    else:
        assert len(gradients) == 6
        assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_a_fresh_prior_receives_gradient_too(
    make_model: Callable[..., IntactVAE], photos: Callable[..., Photos]
) -> None:
    """The last layer's zeros must not block learning: it gets a gradient at once, and passes it on afterwards."""
    model = make_model(prior="x")
    y_BCHW, x_BX, t_BT = photos(4)
    negative_elbo(y_BCHW, model(y_BCHW, x_BX, t_BT, torch.zeros(4, 4)), beta=1.0).loss.backward()
    assert model.prior.layers is not None
    last = model.prior.layers[-1]
    assert last.weight.grad.abs().max() > 0
    assert last.bias.grad.abs().max() > 0


def test_the_predictor_shares_nothing_with_the_vae(make_model: Callable[..., IntactVAE]) -> None:
    with_it, without = make_model(predictor=True).state_dict(), make_model(predictor=False).state_dict()
    assert {name for name in with_it if name not in without} == {
        name for name in with_it if name.startswith("predictor.")
    }
    assert all(torch.equal(with_it[name], tensor) for name, tensor in without.items())


def test_standardisation_is_the_cards_matter_and_not_stored_twice(
    make_model: Callable[..., IntactVAE],
) -> None:
    assert not [name for name in make_model().state_dict() if name.endswith(("_shift", "_scale"))]


def test_beyond_training_a_continuous_dose_is_answered_as_at_the_edge_and_a_binary_one_goes_on(
    make_model: Callable[..., IntactVAE],
) -> None:
    roles = AttributeRoles(
        treatments=(
            Attribute("Young", "binary"),
            Attribute("Age", "continuous", low=18.0, high=85.0, mean=50.0, std=10.0),
        ),
        covariates=(),
    )
    model = make_model(assigned=roles)
    raw = torch.tensor([[-1.0, 5.0], [0.5, 50.0], [2.0, 120.0]])
    expected = torch.tensor([[-3.0, -3.2], [0.0, 0.0], [3.0, 3.5]])
    torch.testing.assert_close(model.standardise_t(raw), expected)
