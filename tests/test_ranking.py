"""The rank-based AUC against scikit-learn."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from civae_core.ranking import auc


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_agrees_with_sklearn_with_and_without_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores_N = torch.randint(levels, (400,), generator=generator).float()
    labels_N = (torch.rand(400, generator=generator) < 0.2 + 0.5 * scores_N / levels).float()
    assert auc(scores_N, labels_N) == pytest.approx(
        roc_auc_score(labels_N.numpy(), scores_N.numpy()), abs=1e-12
    )


def test_perfect_reversed_and_constant_scores() -> None:
    labels_N = torch.tensor([0, 0, 1, 1])
    assert auc(torch.tensor([0.1, 0.2, 0.3, 0.4]), labels_N) == 1.0
    assert auc(torch.tensor([0.4, 0.3, 0.2, 0.1]), labels_N) == 0.0
    assert auc(torch.zeros(4), labels_N) == 0.5


def test_one_class_has_no_auc() -> None:
    with pytest.raises(ValueError, match="both classes"):
        auc(torch.zeros(3), torch.ones(3))
