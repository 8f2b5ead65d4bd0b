"""Training weights: their formulas, their cap, and that they balance a confounded table."""

import pytest
import torch
from torch import Tensor

from civae_core.balance import effective_sample_size, fit_propensity, training_weights
from civae_core.balance.propensity import Kind
from civae_core.balance.weights import capped, overlap_weights
from civae_core.errors import UsageError


def confounded(count: int = 3_000, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NC = torch.randn(count, 3, generator=generator)
    x_NC[:, 0] = (x_NC[:, 0] > 0).float()
    logit_N = strength * (1.5 * x_NC[:, 0] - x_NC[:, 1] - 0.5)
    return x_NC, (torch.rand(count, generator=generator) < torch.sigmoid(logit_N)).float()


def imbalance(x_NC: Tensor, t_N: Tensor, w_N: Tensor) -> float:
    """Largest standardised mean difference between the arms over the covariates."""
    means = [(w_N[t_N == a, None] * x_NC[t_N == a]).sum(0) / w_N[t_N == a].sum() for a in (0.0, 1.0)]
    return float(((means[1] - means[0]) / x_NC.std(0)).abs().max())


def test_none_is_one_everywhere() -> None:
    x_NC, t_N = confounded(10)
    assert torch.equal(training_weights(x_NC, t_N[:, None], ["binary"], "none", 10.0), torch.ones(10))


@pytest.mark.parametrize(("kind", "remaining"), [("inverse", 0.06), ("overlap", 0.01)])
def test_weights_balance_a_confounded_table(kind: str, remaining: float) -> None:
    x_NC, t_N = confounded()
    assert imbalance(x_NC, t_N, torch.ones_like(t_N)) > 0.6
    w_N = training_weights(x_NC, t_N[:, None], ["binary"], kind, 10.0)  # type: ignore[arg-type]
    assert w_N.dtype == torch.float32
    assert float(w_N.mean()) == pytest.approx(1.0, abs=1e-5)
    assert imbalance(x_NC, t_N, w_N) < remaining


def test_inverse_weights_keep_the_arms_shares() -> None:
    x_NC, t_N = confounded()
    w_N = training_weights(x_NC, t_N[:, None], ["binary"], "inverse", 100.0)
    assert float((w_N * t_N).mean()) == pytest.approx(float(t_N.mean()), abs=0.02)


def test_without_confounding_the_weights_are_flat() -> None:
    t_NT = (torch.rand(1_000, 1, generator=torch.Generator().manual_seed(2)) < 0.3).float()
    for kind in ("inverse", "overlap"):
        w_N = training_weights(torch.empty(1_000, 0), t_NT, ["binary"], kind, 10.0)  # type: ignore[arg-type]
        within_arm = torch.stack([w_N[t_NT[:, 0] == a].std() for a in (0.0, 1.0)])
        assert float(within_arm.max()) < 1e-6


def test_without_covariates_inverse_weights_are_one_and_overlap_weights_make_arms_alike() -> None:
    t_NT, no_x_NC = torch.ones(100, 2), torch.empty(100, 0)
    t_NT[:30, 0] = t_NT[10:50, 1] = 0.0  # the treatments are associated
    kinds: list[Kind] = ["binary", "binary"]
    assert torch.equal(training_weights(no_x_NC, t_NT, kinds, "inverse", 10.0), torch.ones(100))
    w_N = training_weights(no_x_NC, t_NT[:, :1], kinds[:1], "overlap", 10.0)
    assert w_N[[99, 0]].tolist() == pytest.approx([0.5 / 0.7, 0.5 / 0.3], abs=0.02)


def test_overlap_weights_are_one_minus_own_propensity() -> None:
    x_NC, t_N = confounded(500)
    model = fit_propensity(x_NC, t_N[:, None], ["binary"])
    e_N = model.mean(x_NC)
    expected_N = torch.where(t_N == 1, 1 - e_N, e_N)
    assert torch.allclose(overlap_weights(model, x_NC, t_N[:, None]), expected_N)


def test_generalised_overlap_weights_of_two_treatments() -> None:
    x_NC, t_N = confounded(800)
    second_N = (torch.rand(800, generator=torch.Generator().manual_seed(4)) < 0.4).float()
    t_NT = torch.stack([t_N, second_N], 1)
    model = fit_propensity(x_NC, t_NT, ["binary", "binary"])
    arms = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    e_AN = torch.stack([model.log_density(arm.expand(800, 2), x_NC).exp() for arm in arms])
    own_N = model.log_density(t_NT, x_NC).exp()
    expected_N = 1 / (1 / e_AN).sum(0) / own_N
    assert torch.allclose(overlap_weights(model, x_NC, t_NT), expected_N)
    # An arm that never occurs is not an arm: with t_2 = t_1 the weights are those of t_1 alone.
    both_N = training_weights(x_NC, torch.stack([t_N, t_N], 1), ["binary", "binary"], "overlap", 1e6)
    single_N = training_weights(x_NC, t_N[:, None], ["binary"], "overlap", 1e6)
    assert float((both_N - single_N).abs().max()) < 0.05


def test_continuous_inverse_weights_take_the_correlation_out() -> None:
    x_NC, _ = confounded()
    t_N = 50 + 5 * x_NC[:, 1] + 10 * torch.randn(len(x_NC), generator=torch.Generator().manual_seed(1))
    w_N = training_weights(x_NC, t_N[:, None], ["continuous"], "inverse", 20.0)

    def correlation(weights_N: Tensor) -> float:
        share_N = weights_N / weights_N.sum()
        a_N, b_N = (v_N - (share_N * v_N).sum() for v_N in (x_NC[:, 1], t_N))
        variances = (share_N * a_N**2).sum() * (share_N * b_N**2).sum()
        return float((share_N * a_N * b_N).sum() / variances.sqrt())

    assert correlation(torch.ones_like(t_N)) > 0.4
    assert abs(correlation(w_N)) < 0.1


def test_cap_bounds_the_normalised_weights() -> None:
    w_N = torch.tensor([100.0, 50.0, 1.0, 1.0, 1.0, 0.5, 0.1, 0.1])
    for cap in (1.0, 1.5, 2.0, 3.0):
        clipped_N = capped(w_N, cap)
        assert float(clipped_N.mean()) == pytest.approx(1.0)
        assert float(clipped_N.max()) <= cap + 1e-9
        assert (clipped_N.diff() <= 1e-12).all()  # the order of the weights survives
    assert torch.allclose(capped(w_N, 8.0), w_N.double() / w_N.double().mean())


def test_weights_stay_bounded_under_perfect_separation() -> None:
    x_NC = torch.linspace(-1, 1, 400)[:, None]
    t_NT = (x_NC > 0).float()
    for kind in ("inverse", "overlap"):
        w_N = training_weights(x_NC, t_NT, ["binary"], kind, 10.0)  # type: ignore[arg-type]
        assert w_N.isfinite().all()
        assert float(w_N.max()) <= 10.0 + 1e-4


def test_impossible_requests_are_refused() -> None:
    x_NC, t_N = confounded(20)
    with pytest.raises(UsageError, match=r"loss\.weights: overlap") as error:
        training_weights(x_NC, t_N[:, None], ["continuous"], "overlap", 10.0)
    assert error.value.hint is not None
    with pytest.raises(UsageError, match=r"loss\.weight_cap: 0\.5"):
        training_weights(x_NC, t_N[:, None], ["binary"], "inverse", 0.5)


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.ones(7)) == pytest.approx(7.0)
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(torch.tensor([2.0, 1.0])) == pytest.approx(9 / 5)


def test_one_outlying_label_leaves_the_other_weights_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x_NC = torch.randn(2_000, 1, generator=generator)
    t_NT = x_NC + 0.05 * torch.randn(2_000, 1, generator=generator)
    t_NT[0] += 30
    w_N = training_weights(x_NC, t_NT, ["continuous"], "inverse", cap=10.0)
    assert w_N.isfinite().all() and w_N.max() <= 10.0 + 1e-4
    assert (w_N[1:] > 0).all()
