"""Building blocks of encoder and decoder: conditioning, normalisation, residual blocks, changes of resolution."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from civae_core.config.schema import ModelConfig

Norm = Literal["group", "batch", "none"]
Activation = Literal["silu", "elu", "relu"]
Block = Literal["basic", "inverted"]

CONDITION_FEATURES = 64
"""Width of the vector that conditions the blocks of encoder and decoder."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "elu": nn.ELU, "relu": nn.ReLU}


def make_norm(kind: Norm, channels: int, eps: float = 1e-5) -> nn.Module:
    """A normalisation layer over [B, channels, H, W]; groups hold at least four channels."""
    if kind == "group":
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0 and (channels // g >= 4 or g == 1))
        return nn.GroupNorm(groups, channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps)
    return nn.Identity()


class ConditionEmbedding(nn.Module):
    """Embeds attributes [B, A] as a vector [B, features] that conditions every block; A may be 0."""

    def __init__(self, attributes: int, features: int) -> None:
        super().__init__()
        self.attributes = attributes
        self.features = features
        self.layers = nn.Sequential(
            nn.Linear(max(attributes, 1), features), nn.SiLU(), nn.Linear(features, features), nn.SiLU()
        )

    def forward(self, a_BA: Tensor) -> Tensor:
        if self.attributes == 0:
            a_BA = a_BA.new_zeros(a_BA.shape[0], 1)
        condition_BF: Tensor = self.layers(a_BA)
        return condition_BF


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018): h·(1 + scale) + shift per channel, both initially zero."""

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        scale_BC, shift_BC = self.linear(condition_BF).chunk(2, dim=1)
        return torch.addcmul(shift_BC[:, :, None, None], h_BCHW, 1 + scale_BC[:, :, None, None])


class ResidualBlock(nn.Module):
    """h + conv(act(film(norm(conv(act(norm(h))))))), all at one resolution and width.

    `condition` is the width of the conditioning vector; with 0 there is no modulation.
    """

    def __init__(self, channels: int, condition: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = make_norm(norm, channels)
        self.film = FiLM(condition, channels) if condition else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = ACTIVATIONS[activation]()
        # A block starts as the identity, so that deeper networks are no harder to train.
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        r_BCHW = self.conv1(self.activation(self.norm1(h_BCHW)))
        r_BCHW = self.norm2(r_BCHW)
        if self.film is not None:
            r_BCHW = self.film(r_BCHW, condition_BF)
        result: Tensor = h_BCHW + self.conv2(self.activation(r_BCHW))
        return result


class InvertedBlock(nn.Module):
    """h + narrow(act(film(norm(depthwise(act(widen(norm(h)))))))): an inverted bottleneck (Sandler et al. 2018).

    1×1 to twice the width, 3×3 within each channel, 1×1 back. Arguments as for `ResidualBlock`.
    """

    WIDER = 2

    def __init__(self, channels: int, condition: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        inner = self.WIDER * channels
        self.norm1 = make_norm(norm, channels)
        self.widen = nn.Conv2d(channels, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.norm2 = make_norm(norm, inner)
        self.film = FiLM(condition, inner) if condition else None
        self.narrow = nn.Conv2d(inner, channels, 1)
        self.activation = ACTIVATIONS[activation]()
        for parameter in self.narrow.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        r_BEHW = self.norm2(self.depthwise(self.activation(self.widen(self.norm1(h_BCHW)))))
        if self.film is not None:
            r_BEHW = self.film(r_BEHW, condition_BF)
        result: Tensor = h_BCHW + self.narrow(self.activation(r_BEHW))
        return result


BLOCKS: dict[Block, type[nn.Module]] = {"basic": ResidualBlock, "inverted": InvertedBlock}


class ResidualStage(nn.Module):
    """A sequence of `count` residual blocks with the same conditioning vector."""

    def __init__(self, config: "ModelConfig", count: int, channels: int, condition: int) -> None:
        super().__init__()
        block = BLOCKS[config.block]
        self.blocks = nn.ModuleList(
            block(channels, condition, config.norm, config.activation) for _ in range(count)
        )

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        for block in self.blocks:
            h_BCHW = block(h_BCHW, condition_BF)
        return h_BCHW


class Downsample(nn.Module):
    """[B, C, H, W] → [B, C', H/2, W/2] by space-to-depth and a 1×1 convolution (a 2×2 convolution of stride 2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 2, stride=2)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        result: Tensor = self.conv(h_BCHW)
        return result


class Upsample(nn.Module):
    """[B, C, H, W] → [B, C', 2H, 2W] by a 1×1 convolution and depth-to-space."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 1)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(h_BCHW), 2)


def as_grid(z_BZ: Tensor, side: int) -> Tensor:
    """Reshape the latents of one grid [B, C · side²] to [B, C, side, side]."""
    return z_BZ.unflatten(1, (-1, side, side))
