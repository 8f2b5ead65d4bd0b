"""An image as layers: where each lies knows no treatment, how it looks is told by it.

    f(z,t)[p] = Σ_k m_k(z)[p] · c_k(z,t)[p],    m(z)[p] = softmax over the layers k at pixel p

Masks m have the image's resolution. Appearances c are coarse grids, interpolated, so only masks can draw an edge. For
one z all doses share all edges; hence what has a place and a shape (the length of hair) must be coded alike under
every dose, or the reconstruction of some images suffers. A decoder that paints pixels has no such reason. It may code
brightness, and then long dark hair corresponds to short white hair.
"""

import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import ACTIVATIONS, CONDITION_FEATURES, ConditionEmbedding

HIDDEN = 256


class Layers(nn.Module):
    """Appearances of `config.layers` layers, and the image that they and their masks make.

    `attributes` is the number of treatments and of covariates that the decoder is given.
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
        """Logits of masks [B,K,S,S], z (its looks, if it is divided) and standardised attributes [B,A] to an image.

        The image [B,C,S,S] is in units of [−1,1].
        """
        seen_BF = torch.cat([z_BZ, self.condition(attributes_BA)], dim=1)
        grids_BKCGG = (
            self.appearance(seen_BF).float().unflatten(1, (self.count, self.channels, self.grid, self.grid))
        )
        spread_SG = bilinear(drawn_BKHW.shape[-1], self.grid, like=drawn_BKHW)
        # Grids are interpolated down to each row, then layers are summed, then knots along the row: of all orders
        # the one that makes least, G colours a pixel in place of one for each layer or of G².
        rows_BHMK = torch.einsum("hi,bkcij->bhcjk", spread_SG, grids_BKCGG).flatten(2, 3)
        masks_BHKW = drawn_BKHW.softmax(dim=1).transpose(1, 2)
        mixed_BHCGW = (rows_BHMK @ masks_BHKW).unflatten(2, (self.channels, self.grid))
        return (mixed_BHCGW * spread_SG.T).sum(dim=3).transpose(1, 2)


def bilinear(size: int, grid: int, like: Tensor) -> Tensor:
    """Weights [size, grid] that interpolate `grid` values linearly, the outer ones at the border."""
    at_S1 = torch.linspace(0, grid - 1, size, device=like.device, dtype=like.dtype)[:, None]
    knots_G = torch.arange(grid, device=like.device, dtype=like.dtype)
    return (1 - (at_S1 - knots_G).abs()).clamp(min=0)
