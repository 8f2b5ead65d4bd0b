"""Diagonal Gaussians against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from civae_core.model import DiagonalNormal, PixelNormal, standard_normal
from civae_core.model.distributions import LOG_STD_MAX, LOG_STD_MIN


def random_normal(seed: int, batch: int = 5, latent: int = 7) -> DiagonalNormal:
    generator = torch.Generator().manual_seed(seed)
    return DiagonalNormal(
        2 * torch.randn(batch, latent, generator=generator), torch.randn(batch, latent, generator=generator)
    )


def reference(normal: DiagonalNormal) -> Independent:
    return Independent(Normal(normal.mean_BZ, normal.log_std_BZ.exp()), 1)


def test_kl_equals_torchs_and_is_summed_over_latent_dimensions() -> None:
    q, p = random_normal(0), random_normal(1)
    kl_B = q.kl(p)
    assert kl_B.shape == (5,)
    torch.testing.assert_close(kl_B, kl_divergence(reference(q), reference(p)), rtol=1e-5, atol=1e-5)
    summed_B = kl_divergence(Normal(q.mean_BZ, q.std_BZ), Normal(p.mean_BZ, p.std_BZ)).sum(dim=1)
    torch.testing.assert_close(kl_B, summed_B, rtol=1e-5, atol=1e-5)


def test_kl_to_the_standard_normal_and_to_itself() -> None:
    q = random_normal(2)
    standard = standard_normal(5, 7, like=q.mean_BZ)
    closed_B = 0.5 * (q.mean_BZ**2 + q.std_BZ**2 - 1 - 2 * q.log_std_BZ).sum(dim=1)
    torch.testing.assert_close(q.kl(standard), closed_B, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.kl(q), torch.zeros(5), atol=1e-6, rtol=0)


def test_sample_uses_the_scale_that_the_kl_uses() -> None:
    q = random_normal(3, batch=1, latent=3)
    noise_NZ = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    draws_NZ = q.sample(noise_NZ)
    torch.testing.assert_close(draws_NZ.mean(dim=0), q.mean_BZ[0], atol=0.05, rtol=0.02)
    torch.testing.assert_close(draws_NZ.std(dim=0), q.std_BZ[0], atol=0, rtol=0.02)


def test_standardise_inverts_sample() -> None:
    q, noise_BZ = random_normal(4), random_normal(5).mean_BZ
    torch.testing.assert_close(q.standardise(q.sample(noise_BZ)), noise_BZ, rtol=1e-4, atol=1e-4)


def test_parameters_are_clamped_once_and_can_come_back_from_beyond() -> None:
    parameters_BP = torch.tensor([[0.5, -50.0], [1.5, 50.0], [2.5, 1.0]], requires_grad=True)
    normal = DiagonalNormal.from_parameters(parameters_BP)
    assert normal.mean_BZ.flatten().tolist() == [0.5, 1.5, 2.5]
    assert normal.log_std_BZ.flatten().tolist() == [LOG_STD_MIN, LOG_STD_MAX, 1.0]
    normal.log_std_BZ.sum().backward()
    assert parameters_BP.grad is not None
    assert parameters_BP.grad[:, 1].tolist() == [1.0, 1.0, 1.0]


def test_half_precision_parameters_become_float32() -> None:
    normal = DiagonalNormal.from_parameters(torch.ones(2, 6, dtype=torch.bfloat16))
    assert normal.mean_BZ.dtype == normal.log_std_BZ.dtype == torch.float32


@pytest.mark.parametrize("scale_shape", [(1, 1, 1), (3, 1, 1), (4, 3, 8, 8)])
def test_pixel_likelihood_equals_torchs_summed_over_pixels(scale_shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(6)
    y_BCHW, mean_BCHW = torch.rand(2, 4, 3, 8, 8, generator=generator)
    log_sigma = torch.randn(scale_shape, generator=generator)
    found_B = PixelNormal(mean_BCHW, log_sigma).negative_log_likelihood(y_BCHW)
    expected_B = -Normal(mean_BCHW, log_sigma.exp().expand(4, 3, 8, 8)).log_prob(y_BCHW).sum(dim=(1, 2, 3))
    torch.testing.assert_close(found_B, expected_B, rtol=1e-5, atol=1e-3)


def test_a_perfect_image_costs_only_the_constant() -> None:
    y_BCHW = torch.full((1, 1, 2, 2), 0.3)
    nll_B = PixelNormal(y_BCHW, torch.zeros(1, 1, 1)).negative_log_likelihood(y_BCHW)
    assert nll_B.item() == pytest.approx(4 * 0.5 * math.log(2 * math.pi))
