"""Re-encoding: a counterfactual, encoded like a photograph, must give the latent that it was made from.

    y' = f(z',t'),   R = KL( q(z|x,y',t') ‖ N( h' + k'·ρ·(r − h)/k, (k'·s/k)² ) )

The second distribution is the photograph's posterior carried to t' by (M6). What the encoder reads, given t', in an
image where t' was painted over the traces of the old treatment is thus made consistent with the model's own
prediction. Gradients reach encoder, decoder and prior.
"""

from torch import Tensor

from civae_core.model import IntactVAE
from civae_core.penalties.arms import Counterfactual


def reencode(model: IntactVAE, x_BX: Tensor, made: Counterfactual) -> Tensor:
    """KL of the encoder's posterior for y' and t' from the one that was predicted: nats per image [B]."""
    return model.encode(made.mean_BCHW, x_BX, made.t_new_BT).at(made.z_BZ).kl(made.latent)
