"""Re-encoding: a counterfactual, read as a photograph, must tell the latent it was made of.

    y' = f(z',t'),   R = KL( q(z|x,y',t') ‖ N( h' + k'·ρ·(r − h)/k, (k'·s/k)² ) )

The second is the posterior of the photograph carried to t' by (M6). What the encoder would read of
t' in an image that was made by painting t' over the old treatment's traces is thus made consistent with the
model's own account. Gradients reach encoder, decoder and prior.
"""

from torch import Tensor

from civae_core.model import IntactVAE
from civae_core.penalties.arms import Counterfactual


def reencode(model: IntactVAE, x_BX: Tensor, made: Counterfactual) -> Tensor:
    """KL of what the encoder reads in y', given t', from what was predicted: nats per image [B]."""
    return model.encode(made.mean_BCHW, x_BX, made.t_new_BT).at(made.z_BZ).kl(made.latent)
