"""METHOD section 7: what the learned prior is for, on toys whose truth is known in closed form.

Small multilayer encoders and decoders around the project's own prior, Gaussians and objective. The outcome is a
vector instead of an image; for the objective it is an image [B, D, 1, 1].
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model import DiagonalNormal, ModelOutput, PixelNormal, Prior
from civae_core.objective import negative_elbo

HIDDEN = 32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: splitting matrices this small only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Study:
    """Confounded observations: covariates, a treatment of −1 or +1, the outcome; and the truth behind them."""

    x_NX: Tensor
    t_N1: Tensor
    y_ND: Tensor
    score_N1: Tensor
    effect_ND: Tensor

    @property
    def naive_D(self) -> Tensor:
        """E[y|t=1] − E[y|t=0]: the effect, and what x does to both."""
        treated_N = self.t_N1[:, 0] > 0
        return self.y_ND[treated_N].mean(dim=0) - self.y_ND[~treated_N].mean(dim=0)


class Toy(nn.Module):
    """A β-Intact-VAE over vectors; `wire` is how strongly the treatment enters the decoder."""

    def __init__(self, study: Study, prior: str, latent: int, log_sigma: float, wire: float) -> None:
        super().__init__()
        covariates, outcomes = study.x_NX.shape[1], study.y_ND.shape[1]
        self.prior = Prior(ModelConfig(prior=prior, latent=latent, prior_hidden=HIDDEN), 1, covariates)
        self.encoder = layers(covariates + 1 + outcomes, 2 * latent)
        self.decoder = layers(latent + 1, outcomes)
        self.log_sigma = nn.Parameter(torch.full((1, 1, 1), log_sigma))
        self.latent, self.wire = latent, wire

    def encode(self, x_BX: Tensor, t_B1: Tensor, y_BD: Tensor) -> DiagonalNormal:
        return DiagonalNormal.from_parameters(self.encoder(torch.cat([x_BX, t_B1, y_BD], dim=1)))

    def decode(self, z_BZ: Tensor, t_B1: Tensor) -> Tensor:
        outcome_BD: Tensor = self.decoder(torch.cat([z_BZ, self.wire * t_B1.expand(len(z_BZ), 1)], dim=1))
        return outcome_BD

    def forward(self, x_BX: Tensor, t_B1: Tensor, y_BD: Tensor, noise_BZ: Tensor) -> ModelOutput:
        q = self.encode(x_BX, t_B1, y_BD)
        mean_BD = self.decode(q.sample(noise_BZ), t_B1)
        return ModelOutput(q, self.prior(x_BX, t_B1), PixelNormal(as_image(mean_BD), self.log_sigma), None)


def layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs)
    )


def as_image(y_BD: Tensor) -> Tensor:
    return y_BD[:, :, None, None]


def fit(
    study: Study,
    prior: str,
    *,
    latent: int = 2,
    beta: float = 1.0,
    log_sigma: float = 0.0,
    wire: float = 1.0,
    steps: int = 400,
    seed: int = 0,
) -> tuple[Toy, float]:
    """A trained toy and the mean loss of its last hundred steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        toy = Toy(study, prior, latent, log_sigma, wire)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(toy.parameters(), lr=5e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    last = torch.zeros(())
    for step in range(steps):
        rows_B = torch.randint(0, len(study.x_NX), (300,), generator=generator)
        y_BD = study.y_ND[rows_B]
        noise_BZ = torch.randn(len(rows_B), latent, generator=generator)
        output = toy(study.x_NX[rows_B], study.t_N1[rows_B], y_BD, noise_BZ)
        loss = negative_elbo(as_image(y_BD), output, beta).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= steps - 100:
            last = last + loss.detach() / 100
    return toy, last.item()


@torch.no_grad()
def prior_averaged_effect(toy: Toy, study: Study) -> Tensor:
    """E_x[ E[f(z,1) | z ~ p(z|x,1)] − E[f(z,0) | z ~ p(z|x,0)] ], with common noise: [D]."""
    noise_NZ = torch.randn(len(study.x_NX), toy.latent, generator=torch.Generator().manual_seed(9))
    arms = []
    for value in (1.0, -1.0):
        t_N1 = torch.full_like(study.t_N1, value)
        arms.append(toy.decode(toy.prior(study.x_NX, t_N1).sample(noise_NZ), t_N1).mean(dim=0))
    return arms[0] - arms[1]


def two_dimensional_study(seed: int = 0, count: int = 3000) -> Study:
    """x decides both who is treated and the outcome: y ∈ R², the true effect (1, −½) for everyone."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(count, 1, generator=generator)

    x_N1 = normal()
    t_N1 = (torch.rand(count, 1, generator=generator) < torch.sigmoid(2 * x_N1)).float()
    score_N1 = x_N1 + 0.5 * normal()
    effect_ND = torch.tensor([[1.0, -0.5]]).expand(count, 2)
    base_ND = torch.cat([score_N1, 0.5 * normal() - score_N1], dim=1)
    noise_ND = 0.1 * torch.cat([normal(), normal()], dim=1)
    return Study(x_N1, 2 * t_N1 - 1, base_ND + t_N1 * effect_ND + noise_ND, score_N1, effect_ND)


@pytest.fixture(scope="module")
def study() -> Study:
    return two_dimensional_study()


def test_the_study_is_confounded(study: Study) -> None:
    assert (study.naive_D - study.effect_ND[0]).abs().min() > 0.8


def test_with_a_standard_prior_the_effect_is_the_naive_difference(study: Study) -> None:
    toy, _ = fit(study, "standard")
    effect_D = prior_averaged_effect(toy, study)
    torch.testing.assert_close(effect_D, study.naive_D, atol=0.15, rtol=0)
    assert (effect_D - study.effect_ND[0]).abs().min() > 0.8


@pytest.mark.parametrize("prior", ["x", "xt"])
def test_with_a_learned_prior_the_effect_comes_near_the_truth(study: Study, prior: str) -> None:
    toy, _ = fit(study, prior)
    effect_D = prior_averaged_effect(toy, study)
    torch.testing.assert_close(effect_D, study.effect_ND[0], atol=0.25, rtol=0)
    assert (effect_D - study.naive_D).abs().min() > 0.7


@torch.no_grad()
def conditional_imbalance(toy: Toy, study: Study) -> float:
    """KL in nats between the two arms' posterior draws of z given x, as Gaussians with a common covariance.

    z is regressed on t beside a cubic in x; the coefficient of t is the distance between the arms at equal x.
    """
    x_N1, t_N1 = study.x_NX, study.t_N1
    noise_NZ = torch.randn(len(x_N1), toy.latent, generator=torch.Generator().manual_seed(5))
    z_NZ = toy.encode(x_N1, t_N1, study.y_ND).sample(noise_NZ)
    design_NK = torch.cat([torch.ones_like(x_N1), x_N1, x_N1**2, x_N1**3, t_N1], dim=1)
    coefficients_KZ = torch.linalg.lstsq(design_NK, z_NZ).solution
    rest_NZ = z_NZ - design_NK @ coefficients_KZ
    gap_Z = 2 * coefficients_KZ[-1]
    return (0.5 * gap_Z @ torch.linalg.solve(rest_NZ.T @ rest_NZ / len(z_NZ), gap_Z)).item()


def test_conditional_imbalance_falls_as_beta_rises(study: Study) -> None:
    """If t enters the decoder as weakly as one scalar beside many latents, z tends to carry t instead."""
    faint = 0.02
    low, middle, high = (
        conditional_imbalance(fit(study, "x", beta=beta, wire=faint)[0], study) for beta in (0.05, 1.0, 10.0)
    )
    assert low > 1.0
    assert low > 2 * middle
    assert middle > 4 * high
    assert high < 0.1


def scalar_study(seed: int, count: int = 3000, omega: float = 6.0) -> Study:
    """In the spirit of the paper's simulation: three covariates, one true score, overlap as poor as ω is large."""
    generator = torch.Generator().manual_seed(seed)
    x_NX = torch.randn(count, 3, generator=generator)
    from_x_N1 = x_NX @ torch.tensor([[1.0], [-0.7], [0.5]])
    score_N1 = from_x_N1 + 0.7 * torch.randn(count, 1, generator=generator)
    t_N1 = (torch.rand(count, 1, generator=generator) < torch.sigmoid(omega * from_x_N1 / 2)).float()
    effect_N1 = 1 + 0.5 * torch.tanh(score_N1)
    y_N1 = score_N1 + t_N1 * effect_N1 + 0.3 * torch.randn(count, 1, generator=generator)
    return Study(x_NX, 2 * t_N1 - 1, y_N1, score_N1, effect_N1)


def best_of_two(study: Study, prior: str) -> Toy:
    """The fit with the lower loss of two seeds: with one latent dimension, a fit may fold one arm onto the other."""
    fits = [fit(study, prior, latent=1, log_sigma=math.log(0.3), steps=550, seed=seed) for seed in (0, 1)]
    return min(fits, key=lambda found: found[1])[0]


@torch.no_grad()
def error_and_correlation(toy: Toy, study: Study) -> tuple[float, float]:
    """sqrt-PEHE of the posterior's mean effect, and |corr(posterior mean of z, true score)|, on another sample."""
    q = toy.encode(study.x_NX, study.t_N1, study.y_ND)
    generator = torch.Generator().manual_seed(1)
    one = torch.ones(1, 1)
    draws = [q.sample(torch.randn(len(study.x_NX), 1, generator=generator)) for _ in range(16)]
    effect_N1 = torch.stack([toy.decode(z_N1, one) - toy.decode(z_N1, -one) for z_N1 in draws]).mean(dim=0)
    correlation = torch.corrcoef(torch.cat([q.mean_BZ, study.score_N1], dim=1).T)[0, 1]
    return (effect_N1 - study.effect_ND).square().mean().sqrt().item(), abs(correlation.item())


def test_individual_effects_and_the_true_score_under_poor_overlap() -> None:
    train, test = scalar_study(seed=100), scalar_study(seed=150, count=2000)
    learned_error, learned_correlation = error_and_correlation(best_of_two(train, "x"), test)
    standard_error, standard_correlation = error_and_correlation(best_of_two(train, "standard"), test)
    assert learned_error < 0.5
    assert learned_error < 0.3 * standard_error
    assert learned_correlation > 0.9 > standard_correlation
