"""What a scorer can be taught, and the weights that keep it from reading one attribute off another."""

import logging

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.errors import DataError
from civae_core.yardstick.balance import balanced_weights, learnable, warn_of_association

YOUNG, MALE, GRAY, TONE = (
    Attribute("Young", "binary"),
    Attribute("Male", "binary"),
    Attribute("Gray", "binary"),
    Attribute("Tone", "continuous"),
)


def confounded(count: int = 4_000) -> Tensor:
    """Young, Male, Gray, Tone [N, 4]: men are old, only the old are gray, tone goes with Male."""
    generator = torch.Generator().manual_seed(0)
    uniform_N4 = torch.rand(count, 4, generator=generator)
    male_N = (uniform_N4[:, 0] < 0.4).float()
    young_N = (uniform_N4[:, 1] < torch.where(male_N > 0, 0.3, 0.9)).float()
    gray_N = (uniform_N4[:, 2] < torch.where(young_N > 0, 0.05, 0.6)).float()
    tone_N = 0.5 * male_N + torch.randn(count, generator=generator)
    return torch.stack([young_N, male_N, gray_N, tone_N], dim=1)


def weighted_correlation(a_N: Tensor, b_N: Tensor, w_N: Tensor) -> float:
    share_N = w_N / w_N.sum()
    a_N, b_N = a_N - (share_N * a_N).sum(), b_N - (share_N * b_N).sum()
    return float((share_N * a_N * b_N).sum() / ((share_N * a_N**2).sum() * (share_N * b_N**2).sum()).sqrt())


TABLE = (YOUNG, MALE, GRAY, TONE)
ROLES = AttributeRoles(treatments=(YOUNG,), covariates=(MALE,), descendants=(GRAY,), held_out=(TONE,))


def test_weights_take_the_confounding_out_of_each_column() -> None:
    labels_NA = confounded()
    weights_NA = balanced_weights(labels_NA, TABLE, ROLES, 20.0)
    torch.testing.assert_close(weights_NA.mean(0), torch.ones(4))
    assert (weights_NA > 0).all()
    unweighted_N = torch.ones(len(labels_NA))
    for column, other in ((0, 1), (1, 0), (0, 3), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1)):
        a_N, b_N = labels_NA[:, column], labels_NA[:, other]
        assert abs(weighted_correlation(a_N, b_N, weights_NA[:, column])) < 0.04
    assert abs(weighted_correlation(labels_NA[:, 0], labels_NA[:, 1], unweighted_N)) > 0.5


def test_a_treatment_is_not_balanced_against_what_it_causes() -> None:
    labels_NA = confounded()
    with_gray_NA = balanced_weights(labels_NA, TABLE, ROLES, 20.0)
    columns = [0, 1, 3]
    without_NA = balanced_weights(labels_NA[:, columns], [TABLE[c] for c in columns], ROLES, 20.0)
    torch.testing.assert_close(with_gray_NA[:, columns], without_NA)
    # Gray hair is the evidence of age: with equal weights it stays just as telling.
    assert abs(weighted_correlation(labels_NA[:, 0], labels_NA[:, 2], with_gray_NA[:, 0])) > 0.4


def test_both_classes_count_alike() -> None:
    labels_NA = confounded()
    weights_NA = balanced_weights(labels_NA, TABLE, ROLES, 20.0)
    for column in range(3):
        ones_N = labels_NA[:, column] > 0.5
        torch.testing.assert_close(weights_NA[ones_N, column].sum(), weights_NA[~ones_N, column].sum())


def test_weights_agree_with_cell_frequencies() -> None:
    labels_NA = confounded()[:, :2]
    weights_NA = balanced_weights(labels_NA, TABLE[:2], ROLES, 20.0)
    expected_N = torch.zeros(len(labels_NA))
    for young in (0, 1):
        for male in (0, 1):
            cell_N = (labels_NA[:, 0] == young) & (labels_NA[:, 1] == male)
            share_of_sex = float((labels_NA[:, 1] == male).float().mean())
            expected_N[cell_N] = 0.5 * share_of_sex * len(labels_NA) / float(cell_N.sum())
    torch.testing.assert_close(weights_NA[:, 0], expected_N, rtol=0.02, atol=0.0)


def test_missing_labels_have_no_weight_and_do_no_harm() -> None:
    labels_NA = confounded()
    labels_NA[::3, 1] = torch.nan
    weights_NA = balanced_weights(labels_NA, TABLE, ROLES, 20.0)
    assert (weights_NA[::3, 1] == 0).all()
    known_N = labels_NA[:, 1].isfinite()
    assert weights_NA[known_N, 1].mean() == pytest.approx(1.0, abs=1e-4)
    assert weights_NA.isfinite().all() and (weights_NA[:, 0] > 0).all()


def test_treatments_are_not_balanced_against_each_other() -> None:
    labels_NA = confounded()[:, :2]
    both = AttributeRoles(treatments=(YOUNG, MALE), covariates=())
    weights_NA = balanced_weights(labels_NA, TABLE[:2], both, 20.0)
    expected_N = 0.5 / labels_NA[:, 0].mean()
    torch.testing.assert_close(weights_NA[labels_NA[:, 0] == 1, 0].unique(), expected_N[None])


def test_the_cap_bounds_the_inverse_propensities() -> None:
    labels_NA = confounded()[:, :2]
    assert balanced_weights(labels_NA, TABLE[:2], ROLES, 1.0)[:, 0].unique().numel() == 2


def test_what_does_not_vary_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    labels_NA = confounded(100)
    labels_NA[:, 0] = 1.0
    labels_NA[7:, 2] = torch.nan
    with caplog.at_level(logging.WARNING, "civae_core"):
        assert learnable(TABLE, labels_NA) == [1, 3]
    assert "too few examples to train a scorer of: Young, Gray" in caplog.text
    labels_NA[:, 3] = 0.25
    assert learnable(TABLE, labels_NA) == [1]
    with pytest.raises(DataError, match="no attribute of the table varies enough"):
        learnable(TABLE, torch.zeros(50, 4))
    with pytest.raises(DataError):
        learnable(TABLE, torch.zeros(0, 4))


def test_a_treatment_that_weights_cannot_part_from_a_covariate_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels_NA = confounded()
    weights_NA = balanced_weights(labels_NA, TABLE, ROLES, 20.0)
    warn_of_association(labels_NA, weights_NA, TABLE, ROLES)
    assert not caplog.text, "Gray goes with Young, but a descendant may"
    labels_NA[:, 0] = 1 - labels_NA[:, 1]
    labels_NA[:40, 0] = 1 - labels_NA[:40, 0]  # hardly any old woman or young man
    warn_of_association(labels_NA, balanced_weights(labels_NA, TABLE, ROLES, 2.0), TABLE, ROLES)
    (record,) = caplog.records
    assert "is still associated with" in record.message and "standardised difference" in record.message
    assert {"Young", "Male"} <= set(record.message.replace(",", "").split())
    caplog.clear()
    labels_NA[:, 0] = labels_NA[:, 1]
    warn_of_association(labels_NA, balanced_weights(labels_NA, TABLE, ROLES, 20.0), TABLE, ROLES)
    assert len(caplog.records) == 1, "also where one is the other"
