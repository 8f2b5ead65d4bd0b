"""Guidance by the model's own attribute predictor P, as a constraint: P must see t' in y', and x as before.

    treatments asked to change     R_j = max( 0, −log P(t'_j|y') − L_j ),   L_j = mean of −log P(t_j|y) on real images
    all other attributes a         R_a = KL( P(a|y) ‖ P(a|y') )             soft labels: its own reading of y

R_j vanishes once t' is as plain to P as the treatment of a real image is, so nothing is exaggerated; R_a vanishes if
P reads the same as before. Continuous attributes contribute half their squared standardised difference. P learns from
real images only: here its weights are constants. P is never the scorer (`evaluate` trains its own).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.penalties.arms import Counterfactual
from civae_core.penalties.frozen import call_frozen
from civae_core.penalties.surprise import Surprise


def guidance(
    predictor: nn.Module,
    made: Counterfactual,
    predicted_BA: Tensor,
    t_BT: Tensor,
    x_BX: Tensor,
    surprise: Surprise,
) -> Tensor:
    """What the predictor finds wrong with y' beyond its usual error, summed over attributes: nats per image [B].

    Args:
        made: the counterfactual y' and its t'.
        predicted_BA: the predictor's outputs on the photographs, treatments first.
        t_BT, x_BX: raw labels of the photographs.
        surprise: that of all attributes, treatments first.
    """
    own_BA = predicted_BA.detach()
    read_BA = call_frozen(predictor, made.mean_BCHW)
    usual_A = surprise(own_BA, torch.cat([t_BT, x_BX], dim=1)).mean(dim=0)
    excess_BA = F.relu(surprise(read_BA, torch.cat([made.t_new_BT, x_BX], dim=1)) - usual_A)
    asked_BA = F.pad(made.asked_BT, (0, x_BX.shape[1]))
    return torch.where(asked_BA, excess_BA, _divergence(own_BA, read_BA, surprise.binary_A)).sum(dim=1)


def _divergence(own_BA: Tensor, read_BA: Tensor, binary_A: Tensor) -> Tensor:
    """KL( P(a|y) ‖ P(a|y') ) [B,A], from the predictor's outputs for photograph and counterfactual."""
    soft_BA = torch.sigmoid(own_BA)
    cross_BA = F.binary_cross_entropy_with_logits(read_BA, soft_BA, reduction="none")
    entropy_BA = F.binary_cross_entropy_with_logits(own_BA, soft_BA, reduction="none")
    return torch.where(binary_A, cross_BA - entropy_BA, 0.5 * (read_BA - own_BA).square())
