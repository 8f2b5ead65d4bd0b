"""Gaussians over latent vectors: one parametrisation of scale for sampling, density and KL.

z is one row of numbers, whatever it is made of. A `DiagonalNormal` is over all of it at once, a `ChainedNormal` over
one scale after another, each given what those before it came out as (`civae_core.model.scales`). Callers ask both the
same questions. What depends on the way, such as a KL, is asked of the diagonal normal *along* one z.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -6.0, 3.0


def clamp_through(raw: Tensor, low: float, high: float) -> Tensor:
    """`raw` within [low, high], with the gradient of `raw` itself: what is beyond can come back."""
    return raw + (raw.clamp(low, high) - raw).detach()


class LatentNormal(ABC):
    """A Gaussian over z whose dimensions may depend on those before: z = mean(z_before) + std(z_before) · noise."""

    @abstractmethod
    def along(self, choose: "Choice") -> "tuple[DiagonalNormal, Tensor]":
        """Goes through z in order, `choose` saying what each part is once its distribution is known.

        Returns:
            The distribution of every part given the parts before it, as one; and z [B, Z].
        """

    def draw(self, noise_BZ: Tensor) -> "tuple[DiagonalNormal, Tensor]":
        """As `along`, with z = mean + std · noise for standard normal noise [B, Z] (reparametrised)."""
        return self.along(lambda part, d: part.mean_BZ + part.std_BZ * noise_BZ[:, d])

    def sample(self, noise_BZ: Tensor) -> Tensor:
        """z of `draw`."""
        return self.draw(noise_BZ)[1]

    def central(self) -> "tuple[DiagonalNormal, Tensor]":
        """As `along`, every part at its mean: z of noise 0."""
        return self.along(lambda part, d: part.mean_BZ)

    def at(self, z_BZ: Tensor) -> "DiagonalNormal":
        """The distribution of every dimension given those of this z before it."""
        return self.along(lambda part, d: z_BZ[:, d])[0]

    def standardise(self, z_BZ: Tensor) -> Tensor:
        """The noise that `sample` would turn into z: η = (z − mean) / std, the abduction of (M5)."""
        along = self.at(z_BZ)
        return (z_BZ - along.mean_BZ) / along.std_BZ


@dataclass(frozen=True)
class DiagonalNormal(LatentNormal):
    """N(mean, diag exp(log_std)²) for each row; both tensors are [B, Z]."""

    mean_BZ: Tensor
    log_std_BZ: Tensor

    @classmethod
    def from_parameters(cls, parameters_BP: Tensor) -> "DiagonalNormal":
        """Splits a network's [B, 2Z] output; the only place where log-scales are clamped.

        The clamp is straight-through in float32, so that a parameter beyond it can still come back.
        """
        mean_BZ, raw_BZ = parameters_BP.float().chunk(2, dim=1)
        return cls(mean_BZ, clamp_through(raw_BZ, LOG_STD_MIN, LOG_STD_MAX))

    @classmethod
    def join(cls, parts: "list[DiagonalNormal]") -> "DiagonalNormal":
        """Independent parts side by side."""
        return cls(
            torch.cat([part.mean_BZ for part in parts], dim=1),
            torch.cat([part.log_std_BZ for part in parts], dim=1),
        )

    @property
    def std_BZ(self) -> Tensor:
        return self.log_std_BZ.exp()

    def part(self, dimensions: slice) -> "DiagonalNormal":
        """Some of the dimensions."""
        return DiagonalNormal(self.mean_BZ[:, dimensions], self.log_std_BZ[:, dimensions])

    def along(self, choose: "Choice") -> "tuple[DiagonalNormal, Tensor]":
        """All of z is one part."""
        return self, choose(self, slice(0, self.mean_BZ.shape[1]))

    def kl(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) in nats, summed over latent dimensions: [B]."""
        return self.kl_by_dimension(other).sum(dim=1)

    def kl_by_dimension(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) in nats of each latent dimension: [B, Z]."""
        log_ratio_BZ = other.log_std_BZ - self.log_std_BZ
        squares_BZ = torch.exp(-2 * log_ratio_BZ) + other.standardise(self.mean_BZ).square()
        return log_ratio_BZ + 0.5 * (squares_BZ - 1)


Choice = Callable[[DiagonalNormal, slice], Tensor]
"""What some dimensions of z [B, d] are, given their distribution and which of z they are."""


class Chain(Protocol):
    """What comes after the first part of z: as many further parts, each computed from those before it."""

    @property
    def length(self) -> int: ...

    def follow(self, parts: list[Tensor], state: Any) -> tuple[DiagonalNormal, Any]:
        """The distribution of the next part, and what the one after it will be computed from besides the parts.

        `state` is None for the first of them.
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
