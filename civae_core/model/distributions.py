"""Gaussians over latent vectors: one parametrisation of scale for sampling, density and KL.

z is always one row of numbers per image. A `DiagonalNormal` describes all of it at once; a `ChainedNormal` describes
one scale after another, each conditioned on the values of the coarser ones (`civae_core.model.scales`). Both have the
same interface. Quantities that depend on those values, such as a KL, are computed from the diagonal normal *along* a
given z.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -6.0, 3.0


def clamp_through(raw: Tensor, low: float, high: float) -> Tensor:
    """Clamp `raw` to [low, high] but keep its gradient (straight-through), so that values outside can return."""
    return raw + (raw.clamp(low, high) - raw).detach()


class LatentNormal(ABC):
    """A Gaussian over z whose dimensions may depend on earlier ones: z = mean(z_before) + std(z_before) · noise."""

    @abstractmethod
    def along(self, choose: "Choice") -> "tuple[DiagonalNormal, Tensor]":
        """Go through z part by part; `choose` sets each part once its distribution is known.

        Returns:
            The distributions of all parts, each given the parts before it, joined into one; and z [B, Z].
        """

    def draw(self, noise_BZ: Tensor) -> "tuple[DiagonalNormal, Tensor]":
        """`along` with z = mean + std · noise, for standard normal noise [B, Z] (reparametrised)."""
        return self.along(lambda part, d: part.mean_BZ + part.std_BZ * noise_BZ[:, d])

    def sample(self, noise_BZ: Tensor) -> Tensor:
        """The z that `draw` returns."""
        return self.draw(noise_BZ)[1]

    def central(self) -> "tuple[DiagonalNormal, Tensor]":
        """`along` with every part at its mean, which is z for zero noise."""
        return self.along(lambda part, d: part.mean_BZ)

    def at(self, z_BZ: Tensor) -> "DiagonalNormal":
        """The distribution of every dimension, given the earlier dimensions of this z."""
        return self.along(lambda part, d: z_BZ[:, d])[0]

    def standardise(self, z_BZ: Tensor) -> Tensor:
        """The noise from which `sample` gives z: η = (z − mean) / std, the abduction of (M5)."""
        along = self.at(z_BZ)
        return (z_BZ - along.mean_BZ) / along.std_BZ


@dataclass(frozen=True)
class DiagonalNormal(LatentNormal):
    """N(mean, diag exp(log_std)²) for each row; both tensors are [B, Z]."""

    mean_BZ: Tensor
    log_std_BZ: Tensor

    @classmethod
    def from_parameters(cls, parameters_BP: Tensor) -> "DiagonalNormal":
        """Split a network's [B, 2Z] output into mean and log-scale; the only place where log-scales are clamped.

        The clamp is straight-through, in float32, so that a parameter outside it can still return.
        """
        mean_BZ, raw_BZ = parameters_BP.float().chunk(2, dim=1)
        return cls(mean_BZ, clamp_through(raw_BZ, LOG_STD_MIN, LOG_STD_MAX))

    @classmethod
    def join(cls, parts: "list[DiagonalNormal]") -> "DiagonalNormal":
        """Concatenate independent parts."""
        return cls(
            torch.cat([part.mean_BZ for part in parts], dim=1),
            torch.cat([part.log_std_BZ for part in parts], dim=1),
        )

    @property
    def std_BZ(self) -> Tensor:
        return self.log_std_BZ.exp()

    def part(self, dimensions: slice) -> "DiagonalNormal":
        """The distribution of some of the dimensions."""
        return DiagonalNormal(self.mean_BZ[:, dimensions], self.log_std_BZ[:, dimensions])

    def along(self, choose: "Choice") -> "tuple[DiagonalNormal, Tensor]":
        """Treat all of z as one part."""
        return self, choose(self, slice(0, self.mean_BZ.shape[1]))

    def kl(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) in nats, summed over latent dimensions: [B]."""
        return self.kl_by_dimension(other).sum(dim=1)

    def kl_by_dimension(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) of each latent dimension, in nats: [B, Z]."""
        log_ratio_BZ = other.log_std_BZ - self.log_std_BZ
        squares_BZ = torch.exp(-2 * log_ratio_BZ) + other.standardise(self.mean_BZ).square()
        return log_ratio_BZ + 0.5 * (squares_BZ - 1)


Choice = Callable[[DiagonalNormal, slice], Tensor]
"""Gives the values [B, d] of some dimensions of z, from their distribution and their positions in z."""


class Chain(Protocol):
    """The `length` parts of z after the first; the distribution of each is computed from the parts before it."""

    @property
    def length(self) -> int: ...

    def follow(self, parts: list[Tensor], state: Any) -> tuple[DiagonalNormal, Any]:
        """The distribution of the next part, and the state to pass on when asking for the part after it.

        `state` is None in the first call.
        """


@dataclass(frozen=True)
class ChainedNormal(LatentNormal):
    """p(z₁) p(z₂|z₁) p(z₃|z₁,z₂) …, each factor a diagonal normal."""

    first: DiagonalNormal
    chain: Chain

    def along(self, choose: Choice) -> tuple[DiagonalNormal, Tensor]:
        normal, normals = self.first, [self.first]
        parts: list[Tensor] = []
        state: Any = None
        start = 0
        for _ in range(self.chain.length + 1):
            if parts:
                normal, state = self.chain.follow(parts, state)
                normals.append(normal)
            stop = start + normal.mean_BZ.shape[1]
            parts.append(choose(normal, slice(start, stop)))
            start = stop
        return DiagonalNormal.join(normals), torch.cat(parts, dim=1)


def standard_normal(batch: int, latent: int, like: Tensor) -> DiagonalNormal:
    """N(0, I) on the device of `like`, in float32."""
    zeros_BZ = torch.zeros(batch, latent, device=like.device, dtype=torch.float32)
    return DiagonalNormal(zeros_BZ, zeros_BZ)
