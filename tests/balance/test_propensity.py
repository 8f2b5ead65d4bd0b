"""The propensity against scikit-learn, under separation, and by the chain rule."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from civae_core.balance import cross_fit, design, fit_propensity, propensity
from civae_core.balance.design import fit_design
from civae_core.errors import DataError
from civae_core.training.memory import peak_memory


def confounded(count: int = 2_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two binary and one continuous covariate; t depends on all of them and on a product."""
    generator = torch.Generator().manual_seed(seed)
    x_NC = torch.randn(count, 3, generator=generator)
    x_NC[:, :2] = (x_NC[:, :2] > 0.3).float()
    logit_N = 1.2 * x_NC[:, 0] - 0.8 * x_NC[:, 2] + x_NC[:, 0] * x_NC[:, 1] - 0.4
    return x_NC, (torch.rand(count, generator=generator) < torch.sigmoid(logit_N)).float()


def test_design_standardises_and_drops_constants() -> None:
    x_NC = torch.cat([confounded()[0].double(), torch.full((2_000, 1), 7.0, dtype=torch.float64)], dim=1)
    d_NF = fit_design(x_NC)(x_NC)
    # 3 columns, 3 products, and one square: the binary columns have none, the constant column nothing at all.
    assert d_NF.shape == (2_000, 1 + 7)
    assert torch.allclose(d_NF[:, 1:].mean(0), torch.zeros(7, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(d_NF[:, 1:].std(0, correction=0), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9, 1e30])
def test_the_units_of_covariates_do_not_matter(unit: float) -> None:
    x_NC, t_N = confounded()
    x_NC = torch.cat([x_NC.double(), torch.full((2_000, 1), 0.1, dtype=torch.float64)], dim=1)
    expected, found = (fit_propensity(x, t_N[:, None], ["binary"]) for x in (x_NC, unit * x_NC))
    assert found.stages[0].design.features == expected.stages[0].design.features == 7
    assert torch.allclose(found.mean(unit * x_NC), expected.mean(x_NC), rtol=0, atol=1e-9)


def test_a_small_spread_about_a_large_value_is_no_constant() -> None:
    """Times in nanoseconds since 1970, of one second."""
    within_N1 = torch.rand(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert fit_design(1.7e18 + 1e9 * within_N1).features == 2


def test_many_inputs_have_no_products() -> None:
    x_NC = torch.randn(100, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert fit_design(x_NC).features == 13


@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_agrees_with_sklearn(ridge: float) -> None:
    x_NC, t_N = confounded()
    design = fit_design(x_NC.double())
    features = design(x_NC.double())[:, 1:].numpy()
    reference = LogisticRegression(C=1.0 / ridge, tol=1e-10, max_iter=1000).fit(features, t_N.numpy())
    ours_N = fit_propensity(x_NC, t_N[:, None], ["binary"], ridge=ridge).mean(x_NC)
    np.testing.assert_allclose(ours_N.numpy(), reference.predict_proba(features)[:, 1], atol=1e-6)


def test_perfect_separation_stays_finite_and_sure() -> None:
    x_NC = torch.linspace(-1, 1, 200)[:, None]
    t_N = (x_NC[:, 0] > 0).float()
    e_N = fit_propensity(x_NC, t_N[:, None], ["binary"], ridge=1e-6).mean(x_NC)
    assert e_N.isfinite().all()
    assert e_N[t_N == 1].min() > 0.5 > e_N[t_N == 0].max()
    assert e_N[-1] > 0.999


def test_no_covariates_gives_the_base_rate() -> None:
    t_NT = torch.tensor([1.0, 0.0, 0.0, 0.0] * 25)[:, None]
    e_N = fit_propensity(torch.empty(100, 0), t_NT, ["binary"]).mean(torch.empty(5, 0))
    assert torch.allclose(e_N, torch.full((5,), 0.25, dtype=torch.float64))


def test_an_empty_arm_is_improbable_not_an_error() -> None:
    e_N = fit_propensity(torch.randn(50, 2), torch.ones(50, 1), ["binary"]).mean(torch.randn(3, 2))
    assert ((e_N > 0.9) & (e_N < 1.0)).all()


def test_chain_rule_over_binary_arms_sums_to_one() -> None:
    x_NC, t_N = confounded()
    second_N = (torch.rand(len(t_N), generator=torch.Generator().manual_seed(1)) < 0.3 + 0.4 * t_N).float()
    model = fit_propensity(x_NC, torch.stack([t_N, second_N], 1), ["binary", "binary"])
    total_N = torch.zeros(len(t_N), dtype=torch.float64)
    for arm in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        total_N += model.log_density(torch.tensor(arm).expand(len(t_N), 2), x_NC).exp()
    assert torch.allclose(total_N, torch.ones_like(total_N))
    # The second treatment depends on the first: the fitted chain must say so.
    ones, zeros = torch.ones(len(t_N), 1), torch.zeros(len(t_N), 1)
    p11 = model.log_density(torch.cat([ones, ones], 1), x_NC) - model.log_density(
        torch.cat([ones, zeros], 1), x_NC
    )
    p01 = model.log_density(torch.cat([zeros, ones], 1), x_NC) - model.log_density(
        torch.cat([zeros, zeros], 1), x_NC
    )
    assert (p11.mean() - p01.mean()) == pytest.approx(math.log(0.7 / 0.3) * 2, abs=0.5)


def test_continuous_treatment_recovers_the_regression_in_any_units() -> None:
    generator = torch.Generator().manual_seed(0)
    x_NC = torch.randn(4_000, 2, generator=generator)
    t_N = 100.0 + 30.0 * x_NC[:, 0] + 10.0 * torch.randn(4_000, generator=generator)
    model = fit_propensity(x_NC, t_N[:, None], ["continuous"])
    assert model.stages[0].residual_std == pytest.approx(10.0, rel=0.05)
    assert torch.allclose(model.mean(torch.tensor([[1.0, 0.0]])), torch.tensor(130.0).double(), atol=1.0)
    density = model.log_density(torch.tensor([[130.0]]), torch.tensor([[1.0, 0.0]]))
    assert float(density) == pytest.approx(-math.log(10.0 * math.sqrt(2 * math.pi)), abs=0.1)


def test_the_residual_variance_is_corrected_for_the_features_used() -> None:
    """Of 20 rows, the constant and 5 features (two inputs, their squares and their product) leave 14."""
    generator = torch.Generator().manual_seed(0)
    x_NC = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    t_N = 3.0 * x_NC[:, 0] + torch.randn(20, generator=generator, dtype=torch.float64)
    x, t = x_NC.numpy(), t_N.numpy()
    features = np.column_stack([np.ones(20), x, x**2, x[:, 0] * x[:, 1]])
    residual = t - features @ np.linalg.lstsq(features, t, rcond=None)[0]
    found = fit_propensity(x_NC, t_N[:, None], ["continuous"], ridge=1e-9).stages[0].residual_std
    assert found == pytest.approx(np.sqrt((residual**2).sum() / (20 - 6)), rel=1e-6)


def test_cross_fit_covers_every_row_once_without_seeing_it() -> None:
    x_NC, t_N = confounded(203)
    fitted = cross_fit(x_NC, t_N[:, None], ["binary"], folds=5, seed=3)
    rows = torch.cat([rows_M for rows_M, _ in fitted.folds])
    assert rows.sort().values.tolist() == list(range(203))
    rows_M, _ = fitted.folds[0]
    others = torch.ones(203, dtype=torch.bool)
    others[rows_M] = False
    alone = fit_propensity(x_NC[others], t_N[others, None], ["binary"]).mean(x_NC[rows_M])
    assert torch.allclose(fitted.mean(x_NC)[rows_M], alone, atol=1e-9)
    assert torch.equal(cross_fit(x_NC, t_N[:, None], ["binary"], seed=3).mean(x_NC), fitted.mean(x_NC))


def test_parts_of_a_table_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NC, t_N = confounded(1_000)
    tables = [(t_N[:, None], ["binary"]), (x_NC[:, 2:] + t_N[:, None], ["continuous"])]
    whole = [fit_propensity(x_NC, t_NT, kinds) for t_NT, kinds in tables]
    for module in (design, propensity):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 170)
    for (t_NT, kinds), expected in zip(tables, whole, strict=True):
        found = fit_propensity(x_NC, t_NT, kinds)
        assert torch.allclose(found.stages[0].weights_F, expected.stages[0].weights_F, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.log_density(t_NT, x_NC), expected.log_density(t_NT, x_NC))


def test_memory_does_not_grow_with_the_features_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight features a row of 64 bits each would be 64 bytes; the fit holds a handful of numbers a row."""
    for module in (design, propensity):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 500)

    def held(rows: int) -> int:
        x_NC, t_N = (values.double() for values in confounded(rows))
        with peak_memory(torch.device("cpu")) as peak:
            fit_propensity(x_NC, t_N[:, None], ["binary"])
        return peak.bytes

    assert held(20_000) - held(10_000) < 10_000 * 40


def test_missing_labels_and_wrong_values_are_named() -> None:
    x_NC = torch.zeros(4, 1)
    x_NC[2] = torch.nan
    with pytest.raises(DataError, match="1 rows have missing or non-finite covariates"):
        fit_propensity(x_NC, torch.ones(4, 1), ["binary"])
    with pytest.raises(DataError, match="values other than 0 and 1"):
        fit_propensity(torch.zeros(4, 1), torch.full((4, 1), -1.0), ["binary"])
    with pytest.raises(DataError, match="no rows"):
        fit_propensity(torch.zeros(0, 1), torch.zeros(0, 1), ["binary"])


@pytest.mark.parametrize(("count", "covariates", "seeds"), [(100, 0, 5), (500, 0, 5), (400, 1, 40)])
def test_the_held_out_auc_of_a_randomised_treatment_is_a_half_on_average(
    count: int, covariates: int, seeds: int
) -> None:
    found = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x_NC = torch.randn(count, covariates, generator=generator)
        t_N = (torch.rand(count, generator=generator) < 0.5).double()
        found.append(cross_fit(x_NC, t_N[:, None], ["binary"], seed=seed).auc(x_NC, t_N))
    assert sum(value or 0.0 for value in found) / len(found) == pytest.approx(0.5, abs=0.01)


def test_every_fold_has_its_share_of_a_rare_arm() -> None:
    x_NC, t_N = torch.randn(103, 1, generator=torch.Generator().manual_seed(0)), torch.zeros(103)
    t_N[:10] = 1.0
    fitted = cross_fit(x_NC, t_N[:, None], ["binary"])
    assert [int(t_N[rows_M].sum()) for rows_M, _ in fitted.folds] == [2] * 5
    assert sorted(len(rows_M) for rows_M, _ in fitted.folds) == [20, 20, 21, 21, 21]


def test_a_table_whose_folds_hold_one_arm_each_has_no_auc() -> None:
    x_NC, t_N = torch.zeros(2, 1), torch.tensor([0.0, 1.0])
    assert cross_fit(x_NC, t_N[:, None], ["binary"]).auc(x_NC, t_N) is None
