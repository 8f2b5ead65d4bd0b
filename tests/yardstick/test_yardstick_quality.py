"""Accuracy, AUC, worst group, R² and error of a scorer, against scikit-learn and loops."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, roc_auc_score

from civae_core.attributes import Attribute
from civae_core.yardstick import score_quality

MALE = Attribute("Male", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)


def test_numbers_agree_with_a_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    label_N = (torch.rand(200, generator=generator) < 0.3).float()
    logit_N = 2 * label_N - 1 + torch.randn(200, generator=generator)
    age_N = 40 + 10 * torch.randn(200, generator=generator)
    standardised_N = (age_N - 40) / 10 + 0.5 * torch.randn(200, generator=generator)
    arm_N = (torch.rand(200, generator=generator) < 0.2).float()
    found = score_quality(
        torch.stack([logit_N, standardised_N], dim=1),
        torch.stack([label_N, age_N], dim=1),
        [MALE, AGE],
        arm_N,
    )
    right_N = (logit_N > 0).float() == label_N
    groups = [right_N[(label_N == label) & (arm_N == arm)].float() for label in (0, 1) for arm in (0, 1)]
    assert min(map(len, groups)) >= 8
    assert found["Male"] == {
        "accuracy": pytest.approx(accuracy_score(label_N, logit_N > 0)),
        "auc": pytest.approx(roc_auc_score(label_N, logit_N)),
        "worst_group_accuracy": pytest.approx(min(float(group.mean()) for group in groups)),
        "n": 200,
    }
    assert found["Age"] == {
        "r2": pytest.approx(r2_score(age_N, 40 + 10 * standardised_N), rel=1e-5),
        "mae": pytest.approx(mean_absolute_error(age_N, 40 + 10 * standardised_N), rel=1e-5),
        "n": 200,
    }


def test_missing_labels_are_left_out() -> None:
    label_N = torch.tensor([1.0, 0.0, math.nan, 1.0, 0.0])
    logit_N = torch.tensor([1.0, -1.0, -9.0, -1.0, 1.0])
    found = score_quality(logit_N[:, None], label_N[:, None], [MALE])
    assert found["Male"] == {"accuracy": 0.5, "auc": 0.5, "n": 4}
    assert score_quality(logit_N[:, None], torch.full((5, 1), math.nan), [MALE]) == {}


def test_what_cannot_be_told_is_absent() -> None:
    found = score_quality(torch.ones(10, 2), torch.ones(10, 2), [MALE, AGE])
    assert found["Male"] == {"accuracy": 1.0, "worst_group_accuracy": 1.0, "n": 10}
    assert set(found["Age"]) == {"mae", "n"}


def test_small_groups_and_unknown_arms_do_not_count_as_worst() -> None:
    label_N = torch.tensor([1.0] * 20 + [0.0] * 20)
    logit_N = torch.where(label_N > 0, 1.0, -1.0)
    logit_N[:7] = -1.0  # all wrong, but only 7
    arm_N = torch.zeros(40)
    arm_N[:7] = 1.0
    assert (
        score_quality(logit_N[:, None], label_N[:, None], [MALE], arm_N)["Male"]["worst_group_accuracy"] == 1
    )
    arm_N[:8], logit_N[7] = 1.0, -1.0
    assert (
        score_quality(logit_N[:, None], label_N[:, None], [MALE], arm_N)["Male"]["worst_group_accuracy"] == 0
    )
    arm_N[:8] = math.nan
    assert (
        score_quality(logit_N[:, None], label_N[:, None], [MALE], arm_N)["Male"]["worst_group_accuracy"] == 1
    )
