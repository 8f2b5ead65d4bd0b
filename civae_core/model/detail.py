"""Fine detail on top of layers, painted from grids of latents: it does not depend on t and has few coarse parts.

    f(z,t) = g(z₁,t) + H d(z₂, …, z_L),    H d = d − up(means of d over 8×8 windows)

g paints layers from the vector z₁. The network d sees the grids alone, and H removes surfaces from its output, that
is, whatever hardly changes over a window or two: the colour of hair that a treatment changes must come from z₁ and t.
What remains is texture, and edges finer than the masks'. H is not a projection: of colours drawn at random for each
window, .44 of the standard deviation remains. A separate network infers the grids from the residual (y − g)/σ.

g is trained as if there were no detail, and is a constant for d (`PixelNormal.training_loss`). If both are trained
together, d takes over contrasts that are due to t, and counterfactuals get worse (docs/hierarchy.md).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import ModelConfig
from civae_core.model.blocks import ACTIVATIONS, ResidualStage, as_grid, make_norm
from civae_core.model.decoder import Decoder, PixelNormal, clamped, give_sigma

WINDOWS = 8
"""Windows along a side of the image; their means are subtracted from the painted detail."""


class Detail(nn.Module):
    """Maps grids of latents, coarse to fine, to an image without surfaces (`without_means`).

    Args:
        config: a config with at least one grid.
        size: side of the image in pixels, a multiple of every grid's side.
        channels: 1 (grey) or 3 (RGB).
    """

    def __init__(self, config: ModelConfig, size: int, channels: int) -> None:
        super().__init__()
        self.grids, self.latents = config.grids, config.scale_latents
        self.magnified = size // self.grids[-1]
        width = config.width
        self.takes = nn.ModuleList(nn.Conv2d(self.latents, width, 1) for _ in self.grids)
        self.stages = nn.ModuleList(ResidualStage(config, 1, width, 0) for _ in self.grids)
        self.head = nn.Sequential(
            make_norm(config.norm, width),
            ACTIVATIONS[config.activation](),
            nn.Conv2d(width, channels * self.magnified**2, 3, padding=1),
        )

    def forward(self, fine_BZ: Tensor) -> Tensor:
        """Detail [B,C,S,S] in units of [−1,1], in float32, from the grids' latents in one row [B,Z₂+…+Z_L]."""
        parts = fine_BZ.split([self.latents * side**2 for side in self.grids], dim=1)
        unconditioned_BF = fine_BZ[:, :0]
        h_BFHW: Tensor | None = None
        for side, part, take, stage in zip(self.grids, parts, self.takes, self.stages, strict=True):
            taken_BFHW = take(as_grid(part, side))
            if h_BFHW is not None:
                taken_BFHW = taken_BFHW + F.interpolate(h_BFHW, size=(side, side), mode="nearest")
            h_BFHW = stage(taken_BFHW, unconditioned_BF)
        return without_means(F.pixel_shuffle(self.head(h_BFHW), self.magnified).float())


def without_means(d_BCHW: Tensor) -> Tensor:
    """Subtract the means over windows, interpolated bilinearly between the windows' centres."""
    means_BCHW = F.adaptive_avg_pool2d(d_BCHW, min(WINDOWS, d_BCHW.shape[-1]))
    return d_BCHW - F.interpolate(means_BCHW, size=d_BCHW.shape[-2:], mode="bilinear", align_corners=False)


class DetailReader(nn.Module):
    """Maps a residual to features at each grid's side, for the posterior of the grids; arguments as for `Detail`."""

    def __init__(self, config: ModelConfig, size: int, channels: int) -> None:
        super().__init__()
        self.grids = config.grids
        self.shrunk = size // self.grids[-1]
        self.stem = nn.Conv2d(channels * self.shrunk**2, config.width, 3, padding=1)
        self.stages = nn.ModuleList(ResidualStage(config, 1, config.width, 0) for _ in self.grids)

    def forward(self, left_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Features [B,F,s,s], coarse to fine, of residuals [B,C,S,S] in units of σ."""
        h_BFHW = self.stem(F.pixel_unshuffle(left_BCHW, self.shrunk))
        features: list[Tensor] = []
        for side, stage in zip(reversed(self.grids), self.stages, strict=True):
            h_BFHW = stage(F.avg_pool2d(h_BFHW, h_BFHW.shape[-1] // side), left_BCHW.flatten(1)[:, :0])
            features.append(h_BFHW)
        return tuple(reversed(features))


class DetailedDecoder(nn.Module):
    """A layered decoder of the vector with detail from the grids on top: p(y|z,t[,x]) with its own σ.

    Arguments as for `Decoder`, with at least one grid. With `sigma: pixel`, this σ is a single number.
    """

    log_sigma: Tensor

    def __init__(
        self, config: ModelConfig, size: int, channels: int, treatments: int, covariates: int
    ) -> None:
        super().__init__()
        self.vector = config.latent
        alone = config.model_copy(update={"scales": None})
        self.coarse = Decoder(alone, size, channels, treatments, covariates)
        self.detail = Detail(config, size, channels)
        give_sigma(self, config, channels)

    def forward(self, z_BZ: Tensor, t_BT: Tensor, x_BX: Tensor) -> PixelNormal:
        """Like `Decoder.forward`; z is the vector followed by the grids."""
        return self._on_top(self.coarse(z_BZ[:, : self.vector], t_BT, x_BX), z_BZ)

    def with_other_looks(
        self, z_BZ: Tensor, other_BZ: Tensor, t_BT: Tensor, x_BX: Tensor
    ) -> tuple[PixelNormal, Tensor]:
        """Like `Decoder.with_other_looks`; the other mean is without detail."""
        vector_BZ, other_BZ = z_BZ[:, : self.vector], other_BZ[:, : self.vector]
        coarse, other_BCHW = self.coarse.with_other_looks(vector_BZ, other_BZ, t_BT, x_BX)
        return self._on_top(coarse, z_BZ), other_BCHW

    def _on_top(self, coarse: PixelNormal, z_BZ: Tensor) -> PixelNormal:
        mean_BCHW = coarse.mean_BCHW + 0.5 * self.detail(z_BZ[:, self.vector :])
        return PixelNormal(mean_BCHW, clamped(self.log_sigma), coarse)
