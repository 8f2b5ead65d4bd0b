"""Overlap reports of randomised, confounded, separated and incomplete tables."""

import json

import pytest
import torch
from torch import Tensor

from civae_core.balance.diagnostics import OverlapReport, overlap_report, smallest_cells
from civae_core.balance.propensity import Kind
from civae_core.balance.verdict import verdict
from civae_core.data.sources.faces import faces_source
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


@pytest.mark.parametrize("larger", [0, 1])
def test_of_equal_cells_those_of_the_larger_group_come_first(larger: int) -> None:
    """Nobody of either group is young: 9 people could be in the larger one, 3 in the smaller."""
    male_N = torch.tensor([larger] * 9 + [1 - larger] * 3).float()
    cells = smallest_cells(male_N[:, None], torch.zeros(12), ["Male"], "Young", [True])
    assert [(cell.values, cell.count, cell.group) for cell in cells[:2]] == [
        ({"Male": larger, "Young": 1}, 0, 9),
        ({"Male": 1 - larger, "Young": 1}, 0, 3),
    ]


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


@pytest.mark.parametrize("kind", ["binary", "continuous"])
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**-30, 2.0**30])
def test_the_units_do_not_matter(kind: Kind, unit: float) -> None:
    """Units are powers of two, in which nothing is rounded differently; a binary treatment has none."""
    x_NC, t_N = (values.double() for values in table(1.0))
    x_NC[:, 1] = 0.1
    if kind == "continuous":
        t_N = x_NC[:, 2] + t_N
    expected, found = (
        overlap_report(by * x_NC, t_N * (1 if kind == "binary" else by), NAMES, "T", kind, [False] * 3)
        for by in (1.0, unit)
    )
    assert found.balance == expected.balance and found.balance[0].before
    assert (found.auc, found.r_squared) == (expected.auc, expected.r_squared)


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
    assert found.level == "poor" and "(Copy alone tells them apart)" in found.verdict
    json.dumps(found.to_dict(), allow_nan=False)


def pair(kind: str, count: int = 4_000) -> tuple[Tensor, Tensor]:
    """A covariate [N, 1] and a treatment [N] that it determines, wholly or mostly."""
    generator = torch.Generator().manual_seed(0)
    x_N = torch.randn(count, generator=generator)
    uniform_N = torch.rand(count, generator=generator)
    noise_N = torch.randn(count, generator=generator)
    female_N = (x_N > 0).float()
    return {
        "copy": (x_N[:, None], x_N),
        "two ranges": (female_N[:, None], 20 + 30 * female_N + 10 * uniform_N),
        "nearly a copy": (x_N[:, None], x_N + 0.1 * uniform_N),
        "half noise": (x_N[:, None], x_N + noise_N),
        "a threshold": (x_N[:, None], female_N),
        "at random": (x_N[:, None], noise_N),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "explained", "left"),
    [("copy", 1.0, 1.0), ("two ranges", 0.96, 0.97), ("nearly a copy", 1.0, 1.0), ("half noise", 0.5, 0.21)],
)
def test_a_dose_that_a_covariate_settles_is_poor_however_large_the_effective_sample(
    kind: str, explained: float, left: float
) -> None:
    found = overlap_report(*pair(kind), ["X"], "Age", "continuous", [kind == "two ranges"])
    assert found.effective_sample_share is not None and found.effective_sample_share > 0.4
    assert found.r_squared == pytest.approx(explained, abs=0.02)
    assert abs(found.balance[0].after or 0.0) == pytest.approx(left, abs=0.02)
    assert found.level == "poor"
    after = abs(found.balance[0].after or 0.0)
    assert f"does not make Age unrelated to them (largest correlation {after:.2f}, of X)" in found.verdict


def test_a_threshold_of_a_covariate_is_poor_and_what_weighting_leaves_apart_is_said() -> None:
    found = overlap_report(*pair("a threshold"), ["X"], "Old", "binary", [False])
    assert found.level == "poor" and (found.effective_sample_share or 0.0) > 0.9
    assert "does not make the groups alike (largest standardised difference 2." in found.verdict


def test_a_dose_at_random_is_good_and_weighting_makes_it_unrelated() -> None:
    found = overlap_report(*pair("at random"), ["X"], "Age", "continuous", [False])
    assert found.level == "good" and "makes Age unrelated to them (largest correlation 0.0" in found.verdict


@pytest.mark.parametrize(
    ("r_squared", "left", "level"),
    [
        (0.1, 0.1, "good"),
        (0.1, 0.11, "moderate"),
        (0.1, 0.26, "poor"),
        (0.3, 0.0, "moderate"),
        (0.6, 0.0, "poor"),
    ],
)
def test_what_is_left_apart_and_explained_bounds_the_level(r_squared: float, left: float, level: str) -> None:
    found, _ = verdict(
        "Age",
        kind="continuous",
        has_covariates=True,
        auc=None,
        r_squared=r_squared,
        share_extreme=None,
        effective_sample_share=0.9,
        remaining=("X", left),
        smallest=None,
    )
    assert found == level


@pytest.mark.parametrize(("overlap", "level"), [(1.0, "good"), (0.5, "good"), (0.2, "poor")])
def test_the_built_in_faces_overlap_as_they_say(overlap: float, level: str) -> None:
    source = faces_source(count=2_000, seed=0, overlap=overlap, truths=(), size=32, channels=1)
    table_NA = torch.tensor(source.table.values_NA[source.splits_N == 0])
    names, kinds = source.table.names, source.table.kinds
    columns = [names.index(name) for name in source.question.covariates]
    found = overlap_report(
        table_NA[:, columns],
        table_NA[:, names.index("Young")],
        source.question.covariates,
        "Young",
        "binary",
        [kinds[column] == "binary" for column in columns],
    )
    assert found.level == level
