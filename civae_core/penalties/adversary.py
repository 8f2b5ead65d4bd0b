"""A conditional adversary: what the latent noise η tells about t beyond x (Ganin et al. 2016, made conditional).

    logit P(t|η,x) = g(x) + a(η,x)
    adversary      min over a   E[ −log p(t|η,x) ]                     g fixed
    encoder        min          E[ log p(t|η,x) − log p(t|x) ]         a and g fixed: the reversed gradient

The encoder's term is a lower bound of the information I(η; t | x) in nats, tight as the adversary converges, provided
that g gives the true p(t|x). With a worse g, a also learns what x alone tells about t, which then counts as told by
η. η is z standardised under the prior at the factual t, which is what a counterfactual keeps of its subject (M5).
With `prior: x` or N(0,I), η tells what z tells; with `prior: xt`, z itself may tell t, through h(x,t).
"""

import torch
from torch import Tensor, nn

from civae_core.model.mlp import mlp
from civae_core.penalties.assignment import HIDDEN
from civae_core.penalties.frozen import call_frozen
from civae_core.penalties.surprise import Surprise


class Adversary(nn.Module):
    """a(η, x): one output for each treatment, added to g(x)."""

    def __init__(self, latent: int, treatments: int, covariates: int) -> None:
        super().__init__()
        self.layers = mlp(latent + covariates, HIDDEN, treatments)

    def forward(self, eta_BZ: Tensor, x_BX: Tensor) -> Tensor:
        """Map latent noise [B, Z] and standardised covariates [B, X] to a [B, T]."""
        a_BT: Tensor = self.layers(torch.cat([eta_BZ, x_BX], dim=1)).float()
        return a_BT


def adversary_terms(
    adversary: nn.Module,
    g_BT: Tensor,
    eta_BZ: Tensor,
    x_BX: Tensor,
    t_BT: Tensor,
    surprise: Surprise,
) -> tuple[Tensor, Tensor]:
    """The encoder's penalty and the adversary's own loss, both [B] in nats, summed over treatments.

    Neither sends gradients to what the other one trains, nor into `g_BT`. `x_BX` is standardised, `t_BT` raw;
    `surprise` is that of the treatments.
    """
    g_BT = g_BT.detach()

    def nats(logits_BT: Tensor) -> Tensor:
        nats_BT: Tensor = surprise(logits_BT, t_BT)
        return nats_BT.sum(dim=1)

    own_B = nats(g_BT + adversary(eta_BZ.detach(), x_BX))
    told_B = nats(g_BT) - nats(g_BT + call_frozen(adversary, eta_BZ, x_BX))
    return told_B, own_B
