"""The yardstick's networks: any size and channel count, unlike a model's networks, and a real posterior."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from civae_core.model.predictor import AttributePredictor
from civae_core.yardstick.instrument import Networks
from civae_core.yardstick.networks import LATENT, AttributeScorer, LatentSpace, folding


@pytest.mark.parametrize(
    ("size", "expected"), [(8, 1), (32, 1), (48, 1), (63, 1), (64, 2), (96, 3), (100, 2), (128, 4), (250, 5)]
)
def test_images_are_folded_by_a_divisor_that_leaves_32_pixels(size: int, expected: int) -> None:
    assert folding(size) == expected
    assert size % folding(size) == 0 and size // folding(size) >= min(size, 32)


@pytest.mark.parametrize(("size", "channels"), [(8, 3), (32, 1), (33, 3), (50, 1), (64, 3), (96, 3)])
def test_every_size_and_channel_count_works(size: int, channels: int) -> None:
    networks = Networks(size, channels, 5)
    y_BCHW = torch.rand(3, channels, size, size)
    outputs_BA, features_BF = networks.scorer(y_BCHW)
    assert outputs_BA.shape == (3, 5) and features_BF.shape == (3, AttributeScorer.features)
    assert networks.latent.encode(y_BCHW).mean_BZ.shape == (3, LATENT)
    networks.latent.loss(y_BCHW, torch.randn(3, LATENT)).backward()
    assert all(p.grad is not None for p in networks.latent.parameters())


def test_the_head_reads_the_features_and_nothing_else() -> None:
    scorer = AttributeScorer(32, 3, 4).eval()
    outputs_BA, features_BF = scorer(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(outputs_BA, features_BF @ scorer.head.weight.T + scorer.head.bias)


def test_features_are_the_mean_and_the_maximum_of_each_channel() -> None:
    mean_BF, maximum_BF = AttributeScorer(32, 3, 4).eval()(torch.rand(2, 3, 32, 32))[1].chunk(2, dim=1)
    assert (maximum_BF >= mean_BF).all() and (maximum_BF > mean_BF + 1e-3).any()


def test_folding_loses_no_pixel() -> None:
    scorer = AttributeScorer(64, 1, 1).eval()
    y_BCHW = torch.rand(1, 1, 64, 64, requires_grad=True)
    scorer(y_BCHW)[1].sum().backward()
    assert y_BCHW.grad is not None and (y_BCHW.grad != 0).float().mean() > 0.99


def test_the_scorer_shares_no_kind_of_normalisation_with_the_predictor_of_models() -> None:
    def kinds(module: torch.nn.Module) -> set[str]:
        return {type(part).__name__ for part in module.modules()}

    assert "BatchNorm2d" in kinds(AttributeScorer(32, 3, 1))
    assert not {"BatchNorm2d", "ReLU"} & kinds(AttributePredictor(32, 3, 1))
    assert not {"GroupNorm", "SiLU"} & kinds(Networks(32, 3, 1))


def test_the_latent_loss_is_the_negative_elbo_for_each_value() -> None:
    torch.manual_seed(0)
    latent = LatentSpace(16, 3)
    y_BCHW, noise_BZ = torch.rand(4, 3, 16, 16), torch.randn(4, LATENT)
    mean_BZ, log_std_BZ = latent.posterior(latent.encoder(2 * y_BCHW - 1).flatten(1)).chunk(2, dim=1)
    posterior = Independent(Normal(mean_BZ, log_std_BZ.exp()), 1)
    prior = Independent(Normal(torch.zeros(4, LATENT), torch.ones(4, LATENT)), 1)
    z_BZ = mean_BZ + log_std_BZ.exp() * noise_BZ
    decoded_BCHW = latent.decoder(latent.unflatten(z_BZ).view(4, *latent.bottom))
    log_p_B = Normal(decoded_BCHW, latent.log_sigma.exp()).log_prob(y_BCHW).flatten(1).sum(1)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi))  # which the loss leaves out, once for each value
    expected = (kl_divergence(posterior, prior) - log_p_B).mean() / y_BCHW[0].numel() - constant
    torch.testing.assert_close(latent.loss(y_BCHW, noise_BZ), expected)
