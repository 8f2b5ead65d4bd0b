"""Overlap reports of randomised, confounded, separated and incomplete tables."""

import json

import pytest
import torch
from torch import Tensor

from civae_core.balance.diagnostics import OverlapReport, overlap_report, smallest_cells
from civae_core.errors import DataError

NAMES = ["Male", "Glasses", "Pose"]
BINARY = [True, True, False]


def table(strength: float, count: int = 2_000) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NC = torch.randn(count, 3, generator=generator)
    x_NC[:, :2] = (x_NC[:, :2] > 0.0).float()
    logit_N = strength * (2.0 * x_NC[:, 0] - 1.0 + 0.5 * x_NC[:, 2])
    return x_NC, (torch.rand(count, generator=generator) < torch.sigmoid(logit_N)).float()


def report(x_NC: Tensor, t_N: Tensor) -> OverlapReport:
    return overlap_report(x_NC, t_N, NAMES, "Young", "binary", BINARY)


def test_randomised_treatment_has_good_overlap() -> None:
    found = report(*table(0.0))
    assert found.level == "good"
    assert found.auc == pytest.approx(0.5, abs=0.05)
    assert found.effective_sample_share is not None and found.effective_sample_share > 0.98
    assert found.share_extreme == 0.0
    assert found.verdict.startswith("Overlap is good: ") and found.verdict.endswith(".")


def test_confounding_shows_and_weighting_removes_it() -> None:
    x_NC, t_N = table(1.0)
    found = report(x_NC, t_N)
    assert found.level == "moderate"
    assert found.auc is not None and 0.65 < found.auc < 0.85
    assert found.balance[0].covariate == "Male"
    assert found.balance[0].before is not None and found.balance[0].before > 0.6
    assert all(abs(row.after or 0.0) < 0.05 for row in found.balance)
    assert sum(found.histogram["0"]) + sum(found.histogram["1"]) == found.n == 2_000
    assert sum(found.histogram["1"]) == found.arms["1"] == int(t_N.sum())
    assert len(found.histogram_edges) == 21


def test_vanishing_overlap_is_poor_and_names_the_smallest_group() -> None:
    x_NC, t_N = table(6.0)
    found = report(x_NC, t_N)
    assert found.level == "poor"
    assert found.share_extreme is not None and found.share_extreme > 0.5
    assert "extrapolation" in found.verdict and "Male=" in found.verdict


def test_cells_include_empty_ones_of_groups_that_exist() -> None:
    # Men with glasses do not exist here, so they are no group; young women without glasses are a gap.
    x_NC = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 4 + [[0.0, 0.0]] * 3)
    t_N = torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0])
    cells = smallest_cells(x_NC, t_N, ["Male", "Glasses"], "Young", [True, True])
    assert len(cells) == 6
    assert cells[0].values == {"Male": 0, "Glasses": 0, "Young": 1}
    assert (cells[0].count, cells[0].group) == (0, 3)
    assert [cell.count for cell in cells] == [0, 1, 3, 3, 3, 3]


def test_many_binary_covariates_are_looked_at_one_by_one() -> None:
    x_NC = (torch.rand(300, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    t_N = x_NC[:, 3]
    cells = smallest_cells(x_NC, t_N, [f"a{i}" for i in range(8)], "t", [True] * 8)
    assert [cell.count for cell in cells[:2]] == [0, 0]
    assert {tuple(cell.values) for cell in cells[:2]} == {("a3", "t")}
    assert len(cells) == 10


def test_continuous_treatment() -> None:
    x_NC, _ = table(0.0)
    t_N = 40 + 8 * x_NC[:, 2] + 6 * torch.randn(len(x_NC), generator=torch.Generator().manual_seed(1))
    found = overlap_report(x_NC, t_N, NAMES, "Age", "continuous", BINARY)
    assert found.r_squared == pytest.approx(64 / 100, abs=0.05)
    assert found.balance_measure == "correlation"
    assert found.balance[0].covariate == "Pose"
    assert found.balance[0].before == pytest.approx(0.8, abs=0.03)
    assert abs(found.balance[0].after or 0.0) < 0.5 * abs(found.balance[0].before or 0.0)
    assert found.auc is None and not found.histogram and not found.cells


def test_missing_labels_are_counted_and_left_out() -> None:
    x_NC, t_N = table(1.0, 300)
    t_N[:7] = torch.nan
    x_NC[5:9, 0] = torch.nan
    found = report(x_NC, t_N)
    assert (found.n, found.missing) == (291, 9)
    with pytest.raises(DataError, match="Young"):
        report(x_NC, torch.full_like(t_N, torch.nan))


def test_one_arm_only() -> None:
    x_NC, t_N = table(1.0, 50)
    found = report(x_NC, torch.ones_like(t_N))
    assert found.level == "poor" and "nothing to compare" in found.verdict
    assert found.arms == {"0": 0, "1": 50} and found.auc is None


def test_no_covariates() -> None:
    _, t_N = table(1.0, 80)
    found = overlap_report(torch.empty(80, 0), t_N, [], "Young", "binary", [])
    assert found.level == "unknown"
    assert [cell.values for cell in found.cells] in (
        [{"Young": 0}, {"Young": 1}],
        [{"Young": 1}, {"Young": 0}],
    )


def test_a_covariate_that_is_the_treatment_stays_valid_json() -> None:
    _, t_N = table(1.0, 200)
    found = overlap_report(t_N[:, None], t_N, ["Copy"], "Young", "binary", [True])
    assert found.balance[0].before is None
    assert found.auc == 1.0
    json.dumps(found.to_dict(), allow_nan=False)
