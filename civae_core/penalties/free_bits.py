"""Free bits: the KL of a latent dimension, averaged over the batch, costs only above a floor (Kingma et al. 2016).

    β · KL_charged = Σ_d β_d · max( λ, mean over the batch of KL_d )

A dimension whose mean KL is below λ gets no gradient from the KL, so its posterior need not collapse onto the prior.
"""

from torch import Tensor


def charged_kl(
    kl_BZ: Tensor, free_nats: float, weights_B: Tensor | None = None, beta: float | Tensor = 1.0
) -> Tensor:
    """The KL that the objective charges, times β: a scalar, at least β · Z · `free_nats` for a single β.

    Args:
        kl_BZ: KL of each image and latent dimension, in nats.
        free_nats: λ, the nats that are free in each dimension.
        weights_B: weights of the images, with mean 1 over the data; None gives every image weight 1.
        beta: one number, or one for each latent dimension [Z].
    """
    weighted_BZ = kl_BZ if weights_B is None else kl_BZ * weights_B[:, None]
    return (beta * weighted_BZ.mean(dim=0).clamp(min=free_nats)).sum()
