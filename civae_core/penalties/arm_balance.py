"""Balance of the prior's arms in closed form: pulls p(z|x,t) towards a balanced p(z|x).

    R = ½ KL( p(z|x,t) ‖ p(z|x,t') ) + ½ KL( p(z|x,t') ‖ p(z|x,t) ),   t' another arm of the same x

R is zero if h and k do not depend on t. Its weight leads from `prior: xt` (0) to `prior: x` (large weights).
"""

from torch import Tensor

from civae_core.model import DiagonalNormal


def arm_balance(prior: DiagonalNormal, prior_elsewhere: DiagonalNormal) -> Tensor:
    """Mean of the two KL divergences between the priors at t and t', in nats per image [B]."""
    return 0.5 * (prior.kl(prior_elsewhere) + prior_elsewhere.kl(prior))
