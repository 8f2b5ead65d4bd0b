"""Balance of the prior's arms in closed form: pulls p(z|x,t) towards a balanced p(z|x).

    R = ½ KL( p(z|x,t) ‖ p(z|x,t') ) + ½ KL( p(z|x,t') ‖ p(z|x,t) ),   t' another arm of the same x

Zero where h and k know no t; between `prior: xt` (weight 0) and `prior: x` (a large weight) it is the dial.
"""

from torch import Tensor

from civae_core.model import DiagonalNormal


def arm_balance(prior: DiagonalNormal, prior_elsewhere: DiagonalNormal) -> Tensor:
    """Mean of both KL divergences between the prior at t and at t', in nats per image [B]."""
    return 0.5 * (prior.kl(prior_elsewhere) + prior_elsewhere.kl(prior))
