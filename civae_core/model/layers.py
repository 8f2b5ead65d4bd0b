"""An image as a sum of layers: their looks depend on the treatment, their places do not.

    f(z,t)[p] = Σ_k m_k(z)[p] · c_k(z,t)[p],    m(z)[p] = softmax over the layers k at pixel p

Masks m have the image's resolution. Appearances c are interpolated from coarse grids, so only masks can draw edges.
For a given z, all doses share all edges. Hence anything with a place and a shape (such as the length of hair) must be
coded alike under every dose, or the reconstruction of some images suffers. A decoder that paints pixels is not forced
to do so: it may code brightness instead, and then long dark hair corresponds to short white hair.
"""

import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import ACTIVATIONS, CONDITION_FEATURES, ConditionEmbedding
from civae_core.model.precision import without_autocast

HIDDEN = 256


class Layers(nn.Module):
    """The appearances of `config.layers` layers, and their composition with the masks into an image.

    `attributes` is the number of treatments and covariates that the decoder is given.
    """

    def __init__(self, config: ModelConfig, channels: int, attributes: int) -> None:
        super().__init__()
        self.count, self.grid, self.channels = config.layers, config.layer_grid, channels
        activation = ACTIVATIONS[config.activation]
        self.condition = ConditionEmbedding(attributes, CONDITION_FEATURES)
        self.appearance = nn.Sequential(
            nn.Linear(config.latent - config.places + CONDITION_FEATURES, HIDDEN),
            activation(),
            nn.Linear(HIDDEN, HIDDEN),
            activation(),
            nn.Linear(HIDDEN, self.count * channels * self.grid**2),
        )

    def forward(self, drawn_BKHW: Tensor, z_BZ: Tensor, attributes_BA: Tensor) -> Tensor:
        """Compose an image [B,C,S,S] in units of [−1,1].

        Takes the masks' logits [B,K,S,S], z (only its looks, if it is divided) and standardised attributes [B,A].
        """
        seen_BF = torch.cat([z_BZ, self.condition(attributes_BA)], dim=1)
        grids_BKCGG = self.appearance(seen_BF).unflatten(1, (self.count, self.channels, self.grid, self.grid))
        # In half precision the masks would not sum to 1, and rounding would count as error of the image.
        with without_autocast(z_BZ.device):
            return self._composed(drawn_BKHW.float(), grids_BKCGG.float())

    def _composed(self, drawn_BKHW: Tensor, grids_BKCGG: Tensor) -> Tensor:
        spread_SG = bilinear(drawn_BKHW.shape[-1], self.grid, like=drawn_BKHW)
        # Interpolate the grids vertically, then sum over layers, then interpolate along each row. This order has the
        # smallest intermediate: G colours per pixel instead of one per layer or G².
        rows_BHMK = torch.einsum("hi,bkcij->bhcjk", spread_SG, grids_BKCGG).flatten(2, 3)
        masks_BHKW = drawn_BKHW.softmax(dim=1).transpose(1, 2)
        mixed_BHCGW = (rows_BHMK @ masks_BHKW).unflatten(2, (self.channels, self.grid))
        return (mixed_BHCGW * spread_SG.T).sum(dim=3).transpose(1, 2)


def bilinear(size: int, grid: int, like: Tensor) -> Tensor:
    """Weights [size, grid] of linear interpolation between `grid` knots, the outermost ones on the border."""
    at_S1 = torch.linspace(0, grid - 1, size, device=like.device, dtype=like.dtype)[:, None]
    knots_G = torch.arange(grid, device=like.device, dtype=like.dtype)
    return (1 - (at_S1 - knots_G).abs()).clamp(min=0)
