"""The objective (M4) against brute force: sums, weights, baselines, purity."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from civae_core.attributes import Attribute
from civae_core.model import DiagonalNormal, IntactVAE, ModelOutput, PixelNormal, standard_normal
from civae_core.objective import negative_elbo, objective, original_loss, predictor_loss
from civae_core.penalties.surprise import Surprise

B, C, S, Z = 5, 3, 8, 4


def random_pass(seed: int = 0, standard: bool = False) -> tuple[Tensor, ModelOutput]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    posterior = DiagonalNormal(normal(B, Z), normal(B, Z))
    prior = (
        standard_normal(B, Z, like=posterior.mean_BZ)
        if standard
        else DiagonalNormal(normal(B, Z), normal(B, Z))
    )
    mean_BCHW, y_BCHW = torch.rand(2, B, C, S, S, generator=generator)
    return y_BCHW, ModelOutput(posterior, prior, PixelNormal(mean_BCHW, normal(C, 1, 1)), None)


def brute_force(y_BCHW: Tensor, output: ModelOutput) -> tuple[list[float], list[float]]:
    """−log p(y) and the KL of each image, summed in plain loops over torch.distributions."""
    q, p, likelihood = output.posterior, output.prior, output.likelihood
    sigma = likelihood.log_sigma.exp().expand_as(likelihood.mean_BCHW)
    log_p = Normal(likelihood.mean_BCHW, sigma).log_prob(y_BCHW)
    kl = kl_divergence(Normal(q.mean_BZ, q.std_BZ), Normal(p.mean_BZ, p.std_BZ))
    return [-sum(row.flatten().tolist()) for row in log_p], [sum(row.tolist()) for row in kl]


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_the_loss_is_the_mean_of_sums_in_nats_per_image(beta: float) -> None:
    y_BCHW, output = random_pass()
    nll, kl = brute_force(y_BCHW, output)
    terms = negative_elbo(y_BCHW, output, beta)
    assert terms.reconstruction.item() == pytest.approx(sum(nll) / B, rel=1e-5)
    assert terms.kl.item() == pytest.approx(sum(kl) / B, rel=1e-5)
    assert terms.loss.item() == pytest.approx((sum(nll) + beta * sum(kl)) / B, rel=1e-5)
    assert terms.squared_error.item() == pytest.approx(
        (output.likelihood.mean_BCHW - y_BCHW).square().mean().item(), rel=1e-6
    )


def test_weights_multiply_the_loss_of_their_image_and_leave_the_reported_terms() -> None:
    y_BCHW, output = random_pass()
    nll, kl = brute_force(y_BCHW, output)
    weights = [0.0, 0.5, 1.0, 1.5, 2.0]
    weighted = negative_elbo(y_BCHW, output, 2.0, torch.tensor(weights))
    expected = sum(w * (n + 2.0 * k) for w, n, k in zip(weights, nll, kl, strict=True)) / B
    assert weighted.loss.item() == pytest.approx(expected, rel=1e-5)
    plain = negative_elbo(y_BCHW, output, 2.0)
    for name in ("reconstruction", "kl", "squared_error"):
        assert torch.equal(getattr(weighted, name), getattr(plain, name))
    assert torch.equal(negative_elbo(y_BCHW, output, 2.0, torch.ones(B)).loss, plain.loss)


def test_duplicating_the_batch_changes_nothing() -> None:
    y_BCHW, output = random_pass()

    def twice(t: Tensor) -> Tensor:
        return torch.cat([t, t])

    doubled = ModelOutput(
        DiagonalNormal(twice(output.posterior.mean_BZ), twice(output.posterior.log_std_BZ)),
        DiagonalNormal(twice(output.prior.mean_BZ), twice(output.prior.log_std_BZ)),
        PixelNormal(twice(output.likelihood.mean_BCHW), output.likelihood.log_sigma),
        None,
    )
    once, again = negative_elbo(y_BCHW, output, 3.0), negative_elbo(twice(y_BCHW), doubled, 3.0)
    torch.testing.assert_close(once.loss, again.loss)


def test_the_originals_loss_by_its_definition() -> None:
    """Mean squared error of images in [−1,1] over pixels, plus kl_scale · mean KL to N(0,I) over dimensions."""
    y_BCHW, output = random_pass(standard=True)
    error = ((2 * y_BCHW - 1) - (2 * output.likelihood.mean_BCHW - 1)).square().mean().item()
    q = output.posterior
    kl = 0.5 * (q.mean_BZ**2 + q.std_BZ**2 - 1 - 2 * q.log_std_BZ)
    terms = original_loss(y_BCHW, output, kl_scale=0.7)
    assert terms.loss.item() == pytest.approx(error + 0.7 * kl.mean().item(), rel=1e-5)
    nll, summed_kl = brute_force(y_BCHW, output)
    assert terms.reconstruction.item() == pytest.approx(sum(nll) / B, rel=1e-5)
    assert terms.kl.item() == pytest.approx(sum(summed_kl) / B, rel=1e-5)


def test_the_configured_objective() -> None:
    y_BCHW, output = random_pass(standard=True)
    weights_B = torch.linspace(0.5, 1.5, B)
    bound = negative_elbo(y_BCHW, output, 2.0, weights_B).loss
    assert torch.equal(objective("intact", y_BCHW, output, 2.0, weights_B).loss, bound)
    assert torch.equal(objective("cvae", y_BCHW, output, 2.0, weights_B).loss, bound)
    theirs = original_loss(y_BCHW, output, 2.0).loss
    assert torch.equal(objective("original", y_BCHW, output, 2.0, weights_B).loss, theirs)


@pytest.mark.parametrize("kind", ["intact", "cvae", "original"])
def test_the_objective_is_pure(
    kind: str, make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    y_BCHW, x_BX, t_BT = photos(4)
    model = make_model(prior="xt" if kind == "intact" else "standard", perturbed=True)
    output = model(y_BCHW, x_BX, t_BT, torch.zeros(4, 4))
    weights_B = torch.tensor([0.5, 1.0, 1.0, 1.5])
    before = [t.clone() for t in (y_BCHW, weights_B, output.likelihood.mean_BCHW, output.posterior.mean_BZ)]
    random_state = torch.get_rng_state()
    first = objective(kind, y_BCHW, output, 2.0, weights_B)  # type: ignore[arg-type]
    second = objective(kind, y_BCHW, output, 2.0, weights_B)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    after = (y_BCHW, weights_B, output.likelihood.mean_BCHW, output.posterior.mean_BZ)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_kl_pulls_posterior_and_prior_towards_each_other() -> None:
    y_BCHW, output = random_pass()
    leaves = [t.requires_grad_() for n in (output.posterior, output.prior) for t in (n.mean_BZ, n.log_std_BZ)]
    negative_elbo(y_BCHW, output, 1.0).loss.backward()
    q_mean, _, p_mean, _ = leaves
    gap_BZ = (q_mean - p_mean).detach()
    assert torch.equal(q_mean.grad.sign(), gap_BZ.sign())
    torch.testing.assert_close(p_mean.grad, -q_mean.grad)


def test_the_predictors_loss_by_kind_of_attribute() -> None:
    attributes = (Attribute("Young", "binary"), Attribute("Age", "continuous", mean=40.0, std=10.0))
    predicted_BA = torch.tensor([[2.0, 0.5], [-1.0, 1.0]])
    a_BA = torch.tensor([[1.0, 45.0], [1.0, 20.0]])
    binary = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(1.0))) / 2
    continuous = 0.5 * ((0.5 - 0.5) ** 2 + (1.0 + 2.0) ** 2) / 2
    assert predictor_loss(predicted_BA, a_BA, Surprise(attributes)).item() == pytest.approx(
        binary + continuous, rel=1e-6
    )


def test_the_predictors_best_answers_are_the_labels_rates_and_means() -> None:
    attributes = (Attribute("Young", "binary"), Attribute("Age", "continuous", mean=40.0, std=10.0))
    a_BA = torch.tensor([[1.0, 30.0], [1.0, 60.0], [1.0, 50.0], [0.0, 40.0]])
    best_A = torch.tensor([math.log(3.0), 0.5], requires_grad=True)
    predictor_loss(best_A.expand(4, 2), a_BA, Surprise(attributes)).backward()
    torch.testing.assert_close(best_A.grad, torch.zeros(2), atol=1e-6, rtol=0)
