"""Encoder, decoder, prior and predictor: shapes, types, and what each is allowed to look at."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model import AttributePredictor, Decoder, Encoder, Prior
from civae_core.model.blocks import ResidualStage

LATENT = 5


def config_with(**values: Any) -> ModelConfig:
    small = {"latent": LATENT, "width": 8, "stages": [1, 2], "prior_hidden": 16, "prior": "xt"}
    return ModelConfig(**small | values)


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    """Perturb every parameter, since the initial zeros of FiLM and of last layers would hide missing connections."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (64, 3), (128, 1)])
@pytest.mark.parametrize("stages", [[1], [1, 2, 4]])
def test_encoder_and_decoder_shapes(size: int, channels: int, stages: list[int]) -> None:
    config = config_with(stages=stages)
    q = Encoder(config, size, channels, 3)(draw(2, channels, size, size), draw(2, 2), draw(2, 1))
    assert q.mean_BZ.shape == q.log_std_BZ.shape == (2, LATENT)
    p = Decoder(config, size, channels, 1, 2)(q.mean_BZ, draw(2, 1), draw(2, 2))
    assert p.mean_BCHW.shape == (2, channels, size, size)
    assert p.mean_BCHW.dtype == q.mean_BZ.dtype == torch.float32


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
@pytest.mark.parametrize("activation", ["silu", "elu", "relu"])
@pytest.mark.parametrize(("block", "blocks"), [("basic", 1), ("basic", 2), ("inverted", 1)])
def test_every_parameter_is_used_whatever_norm_activation_and_block(
    norm: str, activation: str, block: str, blocks: int
) -> None:
    config = config_with(norm=norm, activation=activation, block=block, blocks=blocks)
    encoder, decoder = Encoder(config, 16, 3, 3), Decoder(config, 16, 3, 1, 2)
    perturb(encoder)
    perturb(decoder)
    q = encoder(draw(4, 3, 16, 16), draw(4, 2), draw(4, 1))
    p = decoder(q.sample(draw(4, LATENT)), draw(4, 1), draw(4, 2))
    p.negative_log_likelihood(draw(4, 3, 16, 16)).mean().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias straight before batch normalisation is subtracted again; nothing else may be dead.
        if norm != "batch":
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("block", ["basic", "inverted"])
def test_a_stage_starts_as_the_identity(block: str) -> None:
    stage = ResidualStage(config_with(block=block), 2, 16, 3)
    h_BCHW = draw(2, 16, 4, 4) - 0.5
    assert torch.equal(stage(h_BCHW, draw(2, 3)), h_BCHW)


def test_inverted_blocks_have_fewer_parameters_and_see_neighbours() -> None:
    basic, inverted = (
        ResidualStage(config_with(block=block, norm="none"), 1, 32, 0) for block in ("basic", "inverted")
    )
    assert 3 * sum(p.numel() for p in inverted.parameters()) < sum(p.numel() for p in basic.parameters())
    perturb(inverted)
    h_BCHW = draw(1, 32, 8, 8).requires_grad_()
    inverted(h_BCHW, draw(1, 0))[0, :, 4, 4].sum().backward()
    assert h_BCHW.grad is not None
    assert h_BCHW.grad[0, :, 3, 5].abs().max() > 0 and h_BCHW.grad[0, :, 2, 4].abs().max() == 0


@pytest.mark.parametrize("way", ["film", "concat"])
@pytest.mark.parametrize(("treatments", "covariates"), [(1, 0), (1, 2), (3, 0), (3, 2)])
def test_the_decoder_answers_to_every_attribute(way: str, treatments: int, covariates: int) -> None:
    decoder = Decoder(config_with(treatment_input=way), 16, 3, treatments, covariates)
    perturb(decoder)
    z_BZ, t_BT, x_BX = draw(2, LATENT), draw(2, treatments, seed=1), draw(2, covariates, seed=2)
    before_BCHW = decoder(z_BZ, t_BT, x_BX).mean_BCHW
    for column in range(treatments + covariates):
        a_BA = torch.cat([t_BT, x_BX], dim=1).clone()
        a_BA[:, column] += 1
        t_new_BT, x_new_BX = a_BA.split([treatments, covariates], dim=1)
        assert (decoder(z_BZ, t_new_BT, x_new_BX).mean_BCHW - before_BCHW).abs().max() > 1e-4


@pytest.mark.parametrize("way", ["film", "concat"])
def test_without_x_in_decoder_the_covariates_do_not_reach_it(way: str) -> None:
    decoder = Decoder(config_with(treatment_input=way, x_in_decoder=False), 16, 3, 1, 2)
    perturb(decoder)
    z_BZ, t_BT = draw(2, LATENT), draw(2, 1)
    first, second = (decoder(z_BZ, t_BT, draw(2, 2, seed=s)).mean_BCHW for s in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("sigma", "shape"), [("scalar", (1, 1, 1)), ("channel", (3, 1, 1)), ("fixed", (1, 1, 1))]
)
def test_sigma_starts_at_its_setting_and_is_learned_unless_fixed(sigma: str, shape: tuple[int, ...]) -> None:
    decoder = Decoder(config_with(sigma=sigma, sigma_init=0.2), 16, 3, 1, 0)
    p = decoder(draw(2, LATENT), draw(2, 1), draw(2, 0))
    assert p.log_sigma.shape == shape
    torch.testing.assert_close(p.log_sigma.exp(), torch.full(shape, 0.2))
    learned = dict(decoder.named_parameters()).get("log_sigma")
    assert (learned is None) == (sigma == "fixed")
    assert "log_sigma" in decoder.state_dict()


@pytest.mark.parametrize("sigma_init", [0.004, 2.1])
def test_a_sigma_that_would_be_clamped_is_refused(sigma_init: float) -> None:
    with pytest.raises(ValidationError, match="sigma_init"):
        config_with(sigma="fixed", sigma_init=sigma_init)


@pytest.mark.parametrize(("log_sigma", "sigma"), [(-9.0, 0.005), (3.0, 2.0)])
def test_a_learned_sigma_stays_in_its_range_and_can_come_back_from_beyond(
    log_sigma: float, sigma: float
) -> None:
    decoder = Decoder(config_with(), 16, 3, 1, 0)
    with torch.no_grad():
        decoder.log_sigma.fill_(log_sigma)
    p = decoder(draw(2, LATENT), draw(2, 1), draw(2, 0))
    torch.testing.assert_close(p.log_sigma.exp(), torch.full((1, 1, 1), sigma))
    p.negative_log_likelihood(draw(2, 3, 16, 16)).mean().backward()
    # Downhill points inwards: up from the floor, down from the cap.
    assert decoder.log_sigma.grad.sign().item() == (1.0 if sigma > 1 else -1.0)


def test_per_pixel_sigma_is_a_map_within_floor_and_cap() -> None:
    decoder = Decoder(config_with(sigma="pixel"), 16, 3, 1, 0)
    p = decoder(1e4 * (draw(4, LATENT) - 0.5), draw(4, 1), draw(4, 0))
    assert p.mean_BCHW.shape == p.log_sigma.shape == (4, 3, 16, 16)
    sigma = p.log_sigma.exp()
    assert sigma.min() >= 0.005 * (1 - 1e-5)
    assert sigma.max() <= 2.0 * (1 + 1e-5)
    assert sigma.std() > 0


@pytest.mark.parametrize("attribute", ["image", "covariate", "treatment"])
def test_the_encoder_looks_at_image_covariates_and_treatment(attribute: str) -> None:
    encoder = Encoder(config_with(), 16, 3, 3)
    perturb(encoder)
    y_BCHW, x_BX, t_BT = draw(2, 3, 16, 16), draw(2, 2), draw(2, 1)
    before = encoder(y_BCHW, x_BX, t_BT)
    after = encoder(
        y_BCHW + 0.1 * (attribute == "image"),
        x_BX + (attribute == "covariate"),
        t_BT + (attribute == "treatment"),
    )
    assert (after.mean_BZ - before.mean_BZ).abs().max() > 1e-4
    assert (after.log_std_BZ - before.log_std_BZ).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["xt", "x", "standard"])
@pytest.mark.parametrize(("treatments", "covariates"), [(1, 0), (2, 3)])
def test_the_prior_starts_at_the_standard_normal(kind: str, treatments: int, covariates: int) -> None:
    prior = Prior(config_with(prior=kind), treatments, covariates)
    p = prior(draw(4, covariates), draw(4, treatments))
    assert torch.equal(p.mean_BZ, torch.zeros(4, LATENT))
    assert torch.equal(p.log_std_BZ, torch.zeros(4, LATENT))
    assert (kind == "standard") == (not list(prior.parameters()))


@pytest.mark.parametrize(
    ("kind", "covariates", "depends_on_x", "depends_on_t"),
    [
        ("xt", 2, True, True),
        ("xt", 0, False, True),
        ("x", 2, True, False),
        ("x", 0, False, False),
        ("standard", 2, False, False),
    ],
)
def test_the_prior_looks_only_at_what_its_kind_says(
    kind: str, covariates: int, depends_on_x: bool, depends_on_t: bool
) -> None:
    prior = Prior(config_with(prior=kind), 1, covariates)
    perturb(prior)
    x_BX, t_BT = draw(3, covariates), draw(3, 1)
    before = prior(x_BX, t_BT).mean_BZ
    assert torch.equal(prior(x_BX, t_BT + 1).mean_BZ, before) == (not depends_on_t)
    assert torch.equal(prior(x_BX + 1, t_BT).mean_BZ, before) == (not depends_on_x)


def test_a_balanced_prior_without_covariates_still_learns_a_constant() -> None:
    prior = Prior(config_with(prior="x"), 1, 0)
    perturb(prior)
    mean_BZ = prior(draw(3, 0), draw(3, 1)).mean_BZ
    assert mean_BZ.abs().max() > 1e-3
    torch.testing.assert_close(mean_BZ[0], mean_BZ[2])


@pytest.mark.parametrize("size", [8, 12, 16, 32, 48, 64, 80, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_predictor_has_one_output_per_attribute_at_every_size(size: int, channels: int) -> None:
    outputs_BA = AttributePredictor(size, channels, 3)(draw(2, channels, size, size))
    assert outputs_BA.shape == (2, 3)
    assert outputs_BA.dtype == torch.float32
