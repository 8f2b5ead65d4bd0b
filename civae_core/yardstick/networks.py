"""The yardstick's two networks: a residual attribute scorer, and a small unconditional VAE.

Both differ in architecture from every network that takes part in training: the scorer is a pre-activation residual
network with batch normalisation (He et al. 2016), the VAE a plain stack of strided convolutions without attributes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.model.distributions import DiagonalNormal, standard_normal

WORKING_SIZE = 32
"""Smallest side, in pixels, to which both networks reduce larger images: the scorer folds them into channels, the VAE
averages them, both by a whole number."""

SCORER_WIDTHS = (24, 48, 96)
LATENT_WIDTHS = (32, 48, 64)
LATENT = 16


def folding(size: int) -> int:
    """The largest divisor of `size` that leaves a side of at least `WORKING_SIZE` pixels; 1 for small images."""
    return max(f for f in range(1, max(size // WORKING_SIZE, 1) + 1) if size % f == 0)


class PreactivationBlock(nn.Module):
    """shortcut(h) + conv(relu(norm(conv(relu(norm(h)))))); halves the resolution where `stride` is 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))  # an odd side is rounded up, as conv1 does
        if channels_in != channels_out:
            shortcut.append(nn.Conv2d(channels_in, channels_out, 1, bias=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        r_BCHW = self.conv1(F.relu(self.norm1(h_BCHW)))
        result: Tensor = self.shortcut(h_BCHW) + self.conv2(F.relu(self.norm2(r_BCHW)))
        return result


class AttributeScorer(nn.Module):
    """Predicts one number per attribute from an image: a logit if binary, a standardised value if continuous."""

    features = 2 * SCORER_WIDTHS[-1]

    def __init__(self, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        self.folding = folding(size)
        first = SCORER_WIDTHS[0]
        self.stem = nn.Conv2d(channels * self.folding**2, first, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        previous = first
        for width in SCORER_WIDTHS:
            blocks.append(PreactivationBlock(previous, width, 1 if width == first else 2))
            previous = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(previous)
        self.head = nn.Linear(self.features, attributes)

    def forward(self, y_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map images in [0,1] to outputs [B, attributes] and the features [B, F] from which these are computed."""
        h_BCHW = self.blocks(self.stem(F.pixel_unshuffle(2 * y_BCHW - 1, self.folding)))
        h_BCHW = F.relu(self.norm(h_BCHW))
        # The maximum shows what is small, such as glasses; the mean what is everywhere, such as an overall tone.
        features_BF = torch.cat([h_BCHW.mean(dim=(2, 3)), h_BCHW.amax(dim=(2, 3))], dim=1)
        return self.head(features_BF), features_BF


class LatentSpace(nn.Module):
    """An unconditional VAE with prior N(0,I): tells how far apart two images are, using posterior variances."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.pool = folding(size)
        encoder: list[nn.Module] = []
        previous, side = channels, size // self.pool
        sides = [side]
        for width in LATENT_WIDTHS:
            encoder += [nn.Conv2d(previous, width, 3, 2, padding=1), nn.LeakyReLU(0.1)]
            previous, side = width, (side + 1) // 2
            sides.append(side)
        self.encoder = nn.Sequential(*encoder)
        self.bottom = (previous, side, side)
        cells = previous * side * side
        self.posterior = nn.Linear(cells, 2 * LATENT)
        self.unflatten = nn.Linear(LATENT, cells)
        decoder: list[nn.Module] = []
        for width, larger in zip((*LATENT_WIDTHS[-2::-1], channels), sides[-2::-1], strict=True):
            decoder += [
                nn.LeakyReLU(0.1),
                nn.Upsample(size=(larger, larger)),
                nn.Conv2d(previous, width, 3, padding=1),
            ]
            previous = width
        self.decoder = nn.Sequential(*decoder)
        self.log_sigma = nn.Parameter(torch.tensor(-1.5))

    def encode(self, y_BCHW: Tensor) -> DiagonalNormal:
        """The posterior of images in [0,1]."""
        small_BCHW = F.avg_pool2d(y_BCHW, self.pool) if self.pool > 1 else y_BCHW
        return DiagonalNormal.from_parameters(self.posterior(self.encoder(2 * small_BCHW - 1).flatten(1)))

    def loss(self, y_BCHW: Tensor, noise_BZ: Tensor) -> Tensor:
        """−ELBO in nats per value of the pooled image, averaged over the batch."""
        small_BCHW = F.avg_pool2d(y_BCHW, self.pool) if self.pool > 1 else y_BCHW
        posterior = self.encode(y_BCHW)
        h_BCHW = self.unflatten(posterior.sample(noise_BZ)).unflatten(1, self.bottom)
        squares_B = (small_BCHW - self.decoder(h_BCHW)).square().flatten(1).sum(1)
        values = small_BCHW[0].numel()
        nll_B = 0.5 * squares_B * torch.exp(-2 * self.log_sigma) + values * self.log_sigma
        kl_B = posterior.kl(standard_normal(len(y_BCHW), LATENT, like=y_BCHW))
        return (nll_B + kl_B).mean() / values
