"""Adversary and HSIC: both find what the latent noise tells of t beyond x, take it out, and leave what x says."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from civae_core.attributes import Attribute
from civae_core.penalties.adversary import Adversary, adversary_terms
from civae_core.penalties.assignment import Assignment, residual
from civae_core.penalties.hsic import conditional_hsic, gaussian_kernel
from civae_core.penalties.surprise import Surprise

YOUNG = Attribute("Young", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)
N = 192


class Leaky(nn.Module):
    """Latent noise of two dimensions: one carries t times `own`, which is a leak; one x times `legitimate`."""

    def __init__(self, own: float, legitimate: float) -> None:
        super().__init__()
        self.own, self.legitimate = (nn.Parameter(torch.tensor(v)) for v in (own, legitimate))

    def forward(self, x_BX: Tensor, t_BT: Tensor, seed: int) -> Tensor:
        noise_B2 = torch.randn(len(x_BX), 2, generator=torch.Generator().manual_seed(seed))
        told_B2 = torch.cat([self.own * (2 * t_BT - 1), self.legitimate * x_BX], dim=1)
        return told_B2 + noise_B2


def population(seed: int = 0, treatments: int = 1) -> tuple[Tensor, Tensor]:
    """Standardised x [N, 1] and t [N, T]: P(t=1|x) is .9 at x = 1 and .1 at x = −1."""
    generator = torch.Generator().manual_seed(seed)
    x_N1 = 2.0 * (torch.rand(N, 1, generator=generator) < 0.5) - 1
    draws_NT = torch.rand(N, treatments, generator=generator)
    return x_N1, (draws_NT < 0.5 + 0.4 * x_N1).float()


def fitted_logit(x_B1: Tensor, t_BT: Tensor) -> Tensor:
    """logit P(t=1|x) by counting."""
    logits = torch.zeros_like(t_BT)
    for value in (-1.0, 1.0):
        rows = x_B1[:, 0] == value
        logits[rows] = torch.logit(t_BT[rows].mean(dim=0))
    return logits


def train_adversary(adversary: Adversary, leaky: Leaky, x: Tensor, t: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    for step in range(steps):
        own_B = adversary_terms(
            adversary, fitted_logit(x, t), leaky(x, t, step).detach(), x, t, Surprise([YOUNG])
        )[1]
        optimizer.zero_grad()
        own_B.mean().backward()
        optimizer.step()


@pytest.mark.parametrize(("own", "legitimate", "told"), [(1.5, 0.0, True), (0.0, 1.5, False)])
def test_the_adversary_reads_a_leak_and_no_more_than_that(own: float, legitimate: float, told: bool) -> None:
    torch.manual_seed(0)
    (x, t), leaky, adversary = population(), Leaky(own, legitimate), Adversary(2, 1, 1)
    assert torch.equal(adversary(leaky(x, t, 0), x), torch.zeros(N, 1)), "it starts by knowing nothing"
    train_adversary(adversary, leaky, x, t, 60)
    x, t = population(1)
    nats = (
        adversary_terms(adversary, fitted_logit(x, t), leaky(x, t, 999), x, t, Surprise([YOUNG]))[0]
        .mean()
        .item()
    )
    # −log P(t|x) is 0.33 nats: the most that there is to tell.
    assert 0.1 < nats < 0.34 if told else nats < 0.03


def test_adversarial_steps_take_the_leak_out_and_leave_the_legitimate_part() -> None:
    torch.manual_seed(0)
    (x, t), leaky, adversary = population(), Leaky(1.0, 1.0), Adversary(2, 1, 1)
    train_adversary(adversary, leaky, x, t, 40)
    learns = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    hides = torch.optim.SGD(leaky.parameters(), lr=0.2)
    for step in range(80):
        told_B, own_B = adversary_terms(
            adversary, fitted_logit(x, t), leaky(x, t, step), x, t, Surprise([YOUNG])
        )
        for optimizer in (learns, hides):
            optimizer.zero_grad()
        (told_B + own_B).mean().backward()
        for optimizer in (learns, hides):
            optimizer.step()
    assert abs(leaky.own.item()) < 0.4
    assert leaky.legitimate.item() > 0.7


def test_encoder_adversary_and_offset_each_get_only_their_own_gradient() -> None:
    (x, t), adversary = population(), Adversary(2, 1, 1)
    nn.init.normal_(adversary.layers[-1].weight)  # type: ignore[arg-type]
    eta, g = torch.randn(N, 2, requires_grad=True), torch.zeros(N, 1, requires_grad=True)
    told_B, own_B = adversary_terms(adversary, g, eta, x, t, Surprise([YOUNG]))
    torch.testing.assert_close(told_B + own_B, torch.full((N,), math.log(2)))

    weights = list(adversary.parameters())
    own = torch.autograd.grad(own_B.mean(), [eta, g, *weights], allow_unused=True, retain_graph=True)
    assert own[:2] == (None, None)
    assert all(gradient is not None for gradient in own[2:])
    told = torch.autograd.grad(told_B.mean(), [eta, g, *weights], allow_unused=True)
    assert told[0] is not None
    assert told[0].abs().sum() > 0
    assert set(told[1:]) == {None}


def test_g_learns_what_x_says_of_each_kind_of_treatment() -> None:
    torch.manual_seed(0)
    x, young = population()
    t = torch.cat([young, 40 + 5 * x + torch.randn(N, 1)], dim=1)
    assignment, surprise = Assignment(2, 1), Surprise([YOUNG, AGE])
    optimizer = torch.optim.Adam(assignment.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        surprise(assignment(x), t).sum(dim=1).mean().backward()
        optimizer.step()
    left = residual(assignment(x).detach(), t, surprise)
    for rows in (x[:, 0] > 0, x[:, 0] < 0):
        assert left[rows].mean(dim=0).abs().max() < 0.03
    assert left[:, 1].std() == pytest.approx(0.1, rel=0.2), "in standard deviations"
    assert Assignment(1, 0)(torch.zeros(3, 0)).shape == (3, 1)


def brute_force_hsic(eta: Tensor, x: Tensor, r: Tensor, w: Tensor) -> float:
    """The mean over ordered pairs of different rows, in plain loops."""
    count = len(eta)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    squares = {(i, j): float((eta[i] - eta[j]).square().sum()) for i, j in pairs}
    median = sorted(squares.values())[(len(pairs) - 1) // 2]
    total = 0.0
    for i, j in pairs:
        k = math.exp(-squares[i, j] / median)
        same_x = math.exp(-float((x[i] - x[j]).square().sum()) / (2 * x.shape[1]))
        total += float(w[i] * w[j]) * float(r[i] @ r[j]) * k * same_x
    return total / len(pairs)


def test_hsic_equals_its_sum_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    eta, x, r = (torch.randn(7, width, generator=generator) for width in (3, 2, 2))
    w = torch.rand(7, generator=generator)
    share_B = conditional_hsic(eta, x, r, w)
    assert (share_B * w).mean().item() == pytest.approx(brute_force_hsic(eta, x, r, w), rel=1e-4)
    assert conditional_hsic(eta[:1], x[:1], r[:1], w[:1]).tolist() == [0.0]


def hsic_of(told: Callable[[Tensor, Tensor], Tensor], seeds: int = 8) -> Tensor:
    """HSIC for repeated draws of latent noise, to whose first dimension `told` is added: [seeds]."""
    found = []
    for seed in range(seeds):
        x, t = population(seed)
        eta = torch.randn(N, 2, generator=torch.Generator().manual_seed(100 + seed))
        eta[:, :1] += told(x, t)
        r = residual(torch.logit(0.5 + 0.4 * x), t, Surprise([YOUNG]))
        found.append(conditional_hsic(eta, x, r, torch.ones(N)).mean())
    return torch.stack(found)


def test_hsic_is_zero_about_what_x_says_and_positive_about_what_t_says() -> None:
    nothing = hsic_of(lambda x, t: 0 * t)
    legitimate = hsic_of(lambda x, t: 2 * x)
    leak = hsic_of(lambda x, t: 2 * t)
    opposite = hsic_of(lambda x, t: 2 * t * x)  # a leak whose sign depends on x does not cancel
    for none in (nothing, legitimate):
        assert none.mean().abs() < 2 * none.std() / 8**0.5 + 1e-4
        assert none.min() < 0, "unbiased: it scatters about zero"
    for some in (leak, opposite):
        assert some.min() > 0
        assert some.mean() > 4 * legitimate.abs().mean()


def test_hsic_steps_take_the_leak_out_and_leave_the_legitimate_part() -> None:
    x, t = population()
    leaky, r = Leaky(1.0, 1.0), residual(fitted_logit(x, t), t, Surprise([YOUNG]))
    optimizer = torch.optim.Adam(leaky.parameters(), lr=0.05)
    for step in range(40):
        optimizer.zero_grad()
        conditional_hsic(leaky(x, t, step), x, r, torch.ones(N)).mean().backward()
        optimizer.step()
    assert abs(leaky.own.item()) < 0.4
    assert leaky.legitimate.item() > 0.6


def test_the_kernel_has_the_batchs_own_scale() -> None:
    eta = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussian_kernel(eta), gaussian_kernel(1000 * eta))
    others = gaussian_kernel(eta)[~torch.eye(9, dtype=torch.bool)]
    assert others.median().item() == pytest.approx(math.exp(-1), rel=0.05)
    assert gaussian_kernel(torch.zeros(3, 2)).isfinite().all()
