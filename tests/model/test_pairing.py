"""The rotation that pairs latent noises of different treatments."""

from collections.abc import Callable

import pytest
import torch

from civae_core.attributes import Attribute
from civae_core.counterfactual import abduct, predict
from civae_core.model import IntactVAE
from civae_core.model.pairing import Pairing, exponential
from civae_core.model.precision import full_precision

YOUNG, AGE = (
    Attribute("Young", "binary"),
    Attribute("Age", "continuous", low=20.0, high=80.0, mean=40.0, std=15.0),
)


def turned_anyhow(*treatments: Attribute, turned: int = 4) -> Pairing:
    pairing = Pairing(treatments, slice(2, 2 + turned))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        pairing.free_TLL.copy_(torch.randn(pairing.free_TLL.shape, generator=generator))
    return pairing


def test_the_exponential_is_that_of_the_reference_up_to_ten_radians() -> None:
    generator = torch.Generator().manual_seed(0)
    for largest in (0.1, 1.0, 10.0):
        m_BLL = torch.randn(3, 32, 32, generator=generator, dtype=torch.float64)
        m_BLL = m_BLL - m_BLL.transpose(1, 2)
        m_BLL *= largest / torch.linalg.matrix_norm(m_BLL, 2)[:, None, None]
        torch.testing.assert_close(exponential(m_BLL), torch.linalg.matrix_exp(m_BLL), atol=1e-7, rtol=0)


def test_products_are_whole_whatever_training_computes_in() -> None:
    torch.set_float32_matmul_precision("high")
    in_convolutions = torch.backends.cudnn.allow_tf32
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cudnn.allow_tf32 == in_convolutions
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_it_starts_as_the_identity() -> None:
    eta, t = torch.randn(5, 6), torch.zeros(5, 1)
    assert torch.equal(Pairing((YOUNG,), slice(2, 6))(eta, t, 1 - t), eta)


def test_it_rotates_its_dimensions_and_leaves_the_others() -> None:
    eta, t = torch.randn(5, 9), torch.zeros(5, 1)
    new = turned_anyhow(YOUNG)(eta, t, 1 - t)
    assert torch.equal(new[:, :2], eta[:, :2])
    assert torch.equal(new[:, 6:], eta[:, 6:])
    assert (new[:, 2:6] - eta[:, 2:6]).abs().max() > 0.5
    torch.testing.assert_close(new.norm(dim=1), eta.norm(dim=1))


def test_the_way_back_undoes_the_way_there() -> None:
    pairing = turned_anyhow(YOUNG, AGE)
    eta = torch.randn(5, 6)
    t, new = torch.tensor([[0.0, 30.0]]).expand(5, 2), torch.tensor([[1.0, 70.0]]).expand(5, 2)
    torch.testing.assert_close(pairing(pairing(eta, t, new), new, t), eta, atol=1e-4, rtol=0)


def test_doses_in_between_turn_by_their_share_and_those_beyond_no_further() -> None:
    pairing = turned_anyhow(AGE)
    eta = torch.randn(1, 6)
    low, middle, high, beyond = (torch.tensor([[value]]) for value in (20.0, 50.0, 80.0, 200.0))
    halfway = pairing(eta, low, middle)
    torch.testing.assert_close(pairing(halfway, middle, high), pairing(eta, low, high), atol=1e-5, rtol=0)
    assert torch.equal(pairing(eta, low, beyond), pairing(eta, low, high))


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9])
def test_the_units_of_a_dose_do_not_matter(unit: float) -> None:
    in_units = Attribute("Age", "continuous", low=20 * unit, high=80 * unit, mean=40 * unit, std=15 * unit)
    eta, low, middle = torch.randn(1, 6), torch.tensor([[20.0]]), torch.tensor([[50.0]])
    expected = turned_anyhow(AGE)(eta, low, middle)
    found = turned_anyhow(in_units)(eta, unit * low, unit * middle)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_dose_that_never_varied_turns_nothing() -> None:
    pairing = turned_anyhow(Attribute("Age", "continuous", low=20.0, high=20.0, mean=20.0, std=0.0))
    eta, same = torch.randn(1, 6), torch.tensor([[20.0]])
    torch.testing.assert_close(pairing(eta, same, same), eta)


def test_a_counterfactual_is_decoded_from_the_turned_noise(
    make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[torch.Tensor, ...]]
) -> None:
    y, x, t = photos(4)
    unmasked = dict.fromkeys(["latent_mask_width", "looks_mask_width"])
    paired = make_model(perturbed=True, **unmasked, pairing="contours")
    abduction = abduct(paired, y, x, t)
    prior = paired.prior_of(x, 1 - t)
    eta = paired.paired(abduction.eta_BZ, t, 1 - t)
    expected = paired.decode(prior.sample(eta), 1 - t, x).mean_BCHW
    torch.testing.assert_close(predict(paired, abduction, 1 - t, noise=0.0).mean_BCHW, expected)
    assert (eta - abduction.eta_BZ).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "turned"),
    [
        ({"prior": "xt"}, slice(2, 4)),
        ({"prior": "xt", "place_latents": 0}, slice(0, 4)),
        ({"prior": "x"}, None),
        ({"prior": "standard"}, None),
        ({"prior": "xt", "pairing": "none"}, None),
        ({"prior": "xt", "scales": [1, 4], "decoder": "layered"}, slice(2, 4)),
        ({"prior": "xt", "scales": [1, 4], "decoder": "direct", "place_latents": 0}, None),
    ],
)
def test_what_is_turned(
    make_model: Callable[..., IntactVAE], settings: dict[str, object], turned: slice | None
) -> None:
    model = make_model(**{"pairing": "contours"} | settings)
    assert (model.pairing.turned if model.pairing is not None else None) == turned
