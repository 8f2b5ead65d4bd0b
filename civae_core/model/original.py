"""The original project's network: resampling blocks, attributes as planes beside the image, t beside z.

    encoder   [y; planes of x, t] → 3×3 → down … down → bottleneck … → act → 1×1 → flat → dense, for mean and log s²
    decoder   [z; t] → dense → 1×1 → bottleneck … → up … up → act → 5×5 → tanh

    down, up     conv( act( norm( main ) ) ) + skip,   main and skip from one convolution of act(norm(h))
    bottleneck   h + conv( act( norm( conv( act(norm(h)) ) ) ) ),   half as wide inside

Each down block leads from its multiple in `stages` to the next one, the last block to twice its own. The decoder
mirrors this. The original's prior, which was never trained, and its log-variance head, which was never read, are left
out.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import ACTIVATIONS, Activation, Norm, as_grid, make_norm
from civae_core.model.decoder import PixelNormal, give_sigma, split_sigma
from civae_core.model.distributions import DiagonalNormal

NORM_EPS = 1e-4
"""Epsilon of the original's normalisation layers."""


def widths_of(config: ModelConfig) -> list[int]:
    """Channels at each resolution, from the image's down to the bottom: one entry more than there are stages."""
    return [config.width * multiple for multiple in (*config.stages, 2 * config.stages[-1])]


def start_of_block(channels: int, norm: Norm, activation: Activation) -> nn.Sequential:
    """Normalisation and non-linearity, as applied before each convolution."""
    return nn.Sequential(make_norm(norm, channels, NORM_EPS), ACTIVATIONS[activation]())


class BottleneckBlock(nn.Module):
    """A residual block [B, C, H, W] → [B, C, H, W] with C/2 channels inside."""

    def __init__(self, channels: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        inside = max(channels // 2, 1)
        self.layers = nn.Sequential(
            start_of_block(channels, norm, activation),
            nn.Conv2d(channels, inside, 3, padding=1),
            start_of_block(inside, norm, activation),
            nn.Conv2d(inside, channels, 3, padding=1),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        result: Tensor = h_BCHW + self.layers(h_BCHW)
        return result


class DownBlock(nn.Module):
    """[B, C, H, W] → [B, C', H/2, W/2]; one convolution of stride 2 gives the skip and C'/2 channels of main."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.parts = (channels_out, max(channels_out // 2, 1))
        self.start = start_of_block(channels_in, norm, activation)
        self.both = nn.Conv2d(channels_in, sum(self.parts), 3, stride=2, padding=1)
        self.rest = nn.Sequential(
            start_of_block(self.parts[1], norm, activation),
            nn.Conv2d(self.parts[1], channels_out, 3, padding=1),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        skip_BCHW, main_BCHW = self.both(self.start(h_BCHW)).split(self.parts, dim=1)
        result: Tensor = skip_BCHW + self.rest(main_BCHW)
        return result


class UpBlock(nn.Module):
    """[B, C, H, W] → [B, C', 2H, 2W]; one convolution, after upsampling, gives the skip and C/2 channels of main."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.parts = (channels_out, max(channels_in // 2, 1))
        self.start = start_of_block(channels_in, norm, activation)
        self.both = nn.Conv2d(channels_in, sum(self.parts), 3, padding=1)
        self.rest = nn.Sequential(
            start_of_block(self.parts[1], norm, activation),
            nn.Conv2d(self.parts[1], channels_out, 3, padding=1),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        large_BCHW = F.interpolate(self.start(h_BCHW), scale_factor=2.0, mode="nearest")
        skip_BCHW, main_BCHW = self.both(large_BCHW).split(self.parts, dim=1)
        result: Tensor = skip_BCHW + self.rest(main_BCHW)
        return result


class OriginalEncoder(nn.Module):
    """Maps image and attributes to the posterior of z; arguments as for `Encoder`.

    Attributes enter as constant planes beside the image, standardised: binary ones are −1 or 1, the range of pixels.
    """

    def __init__(self, config: ModelConfig, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        widths, way = widths_of(config), (config.norm, config.activation)
        blocks: list[nn.Module] = [nn.Conv2d(channels + attributes, widths[0], 3, padding=1)]
        for channels_in, channels_out in itertools.pairwise(widths):
            if config.deep:
                blocks.append(BottleneckBlock(channels_in, *way))
            blocks.append(DownBlock(channels_in, channels_out, *way))
        blocks += [BottleneckBlock(widths[-1], *way) for _ in range(config.blocks)]
        self.body = nn.Sequential(*blocks, ACTIVATIONS[config.activation]())
        bottom = size // 2 ** len(config.stages)
        self.mean, self.log_variance = (
            nn.Sequential(
                nn.Conv2d(widths[-1], config.latent, 1),
                nn.Flatten(),
                nn.Linear(config.latent * bottom**2, config.latent),
            )
            for _ in range(2)
        )

    def forward(self, y_BCHW: Tensor, x_BX: Tensor, t_BT: Tensor) -> DiagonalNormal:
        """q(z|x,y,t) for images [B,C,S,S] in [0,1], standardised covariates [B,X] and factual treatments [B,T]."""
        a_BA = torch.cat([x_BX, t_BT], dim=1)
        planes_BAHW = a_BA[:, :, None, None].expand(-1, -1, *y_BCHW.shape[2:])
        h_BCHW = self.body(torch.cat([2 * y_BCHW - 1, planes_BAHW], dim=1))
        return DiagonalNormal.from_parameters(
            torch.cat([self.mean(h_BCHW), 0.5 * self.log_variance(h_BCHW)], dim=1)
        )


class OriginalDecoder(nn.Module):
    """Maps latents and treatment, but not covariates, to a distribution over images; arguments as for `Decoder`."""

    log_sigma: Tensor

    def __init__(
        self, config: ModelConfig, size: int, channels: int, treatments: int, covariates: int
    ) -> None:
        super().__init__()
        widths, way = widths_of(config)[::-1], (config.norm, config.activation)
        self.bottom = size // 2 ** len(config.stages)
        self.channels, self.sigma_kind = channels, config.sigma
        self.root = nn.Linear(config.latent + treatments, config.latent * self.bottom**2)
        blocks: list[nn.Module] = [nn.Conv2d(config.latent, widths[0], 1)]
        blocks += [BottleneckBlock(widths[0], *way) for _ in range(config.blocks)]
        for channels_in, channels_out in itertools.pairwise(widths):
            blocks.append(UpBlock(channels_in, channels_out, *way))
            if config.deep:
                blocks.append(BottleneckBlock(channels_out, *way))
        maps = channels * (2 if config.sigma == "pixel" else 1)
        self.body = nn.Sequential(
            *blocks, ACTIVATIONS[config.activation](), nn.Conv2d(widths[-1], maps, 5, padding=2)
        )
        give_sigma(self, config, channels)

    def forward(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        """p(y|z,t) for z [B,Z] and standardised treatments [B,T] (any real value); covariates are ignored."""
        h_BCHW = as_grid(self.root(torch.cat([z_BZ, t_BT], dim=1)), self.bottom)
        out_BMHW = self.body(h_BCHW).float()
        image_BCHW, log_sigma = split_sigma(self.sigma_kind, self.log_sigma, out_BMHW, self.channels)
        return PixelNormal(0.5 + 0.5 * image_BCHW.tanh(), log_sigma)
