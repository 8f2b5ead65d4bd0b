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

from civae_core.attributes import AttributeRoles
from civae_core.penalties.arms import Counterfactual
from civae_core.penalties.frozen import call_frozen
from civae_core.penalties.surprise import surprises


def guidance(
    predictor: nn.Module,
    made: Counterfactual,
    predicted_BA: Tensor,
    t_BT: Tensor,
    x_BX: Tensor,
    roles: AttributeRoles,
) -> Tensor:
    """What the predictor finds wrong with y' beyond its usual error, summed over attributes: nats per image [B].

    Args:
        made: the counterfactual y' and its t'.
        predicted_BA: the predictor's outputs on the photographs, treatments first.
        t_BT, x_BX: raw labels of the photographs.
    """
    own_BA = predicted_BA.detach()
    read_BA = call_frozen(predictor, made.mean_BCHW)
    usual = surprises(own_BA, torch.cat([t_BT, x_BX], dim=1), roles.inputs)
    missed = surprises(read_BA[:, : t_BT.shape[1]], made.t_new_BT, roles.treatments)
    terms = []
    for index, attribute in enumerate(roles.inputs):
        term_B = _divergence(own_BA[:, index], read_BA[:, index], binary=attribute.kind == "binary")
        if index < len(missed):
            excess_B = F.relu(missed[index] - usual[index].mean())
            term_B = torch.where(made.asked_BT[:, index], excess_B, term_B)
        terms.append(term_B)
    return torch.stack(terms).sum(dim=0)


def _divergence(own_B: Tensor, read_B: Tensor, *, binary: bool) -> Tensor:
    """KL( P(a|y) ‖ P(a|y') ) [B], from the predictor's outputs for photograph and counterfactual."""
    if not binary:
        return 0.5 * (read_B - own_B).square()
    soft_B = torch.sigmoid(own_B)
    cross_B = F.binary_cross_entropy_with_logits(read_B, soft_B, reduction="none")
    return cross_B - F.binary_cross_entropy_with_logits(own_B, soft_B, reduction="none")
