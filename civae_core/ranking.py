"""Area under the ROC curve from ranks."""

import torch
from torch import Tensor


def auc(scores_N: Tensor, labels_N: Tensor) -> float:
    """Probability that a random positive scores above a random negative; ties count one half.

    Args:
        scores_N: any real scores [N], larger meaning more positive.
        labels_N: 0 or 1 [N].

    Raises:
        ValueError: one of the two classes is empty, or the shapes differ.
    """
    if scores_N.shape != labels_N.shape or scores_N.ndim != 1:
        raise ValueError(
            f"scores {tuple(scores_N.shape)} and labels {tuple(labels_N.shape)} must be one [N] each"
        )
    positive_N = labels_N.to("cpu") > 0.5
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        raise ValueError("the AUC needs both classes")
    scores_N = scores_N.detach().to("cpu").to(torch.float64)
    _, group_N, count_G = scores_N.unique(return_inverse=True, return_counts=True)
    # Tied scores all get the mean of the ranks that they occupy (1-based).
    mean_rank_G = count_G.cumsum(0).to(torch.float64) - (count_G - 1).to(torch.float64) / 2
    rank_sum = float(mean_rank_G[group_N][positive_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
