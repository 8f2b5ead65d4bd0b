"""Diagonal Gaussians over latent vectors: one parametrisation of scale for sampling, density and KL."""

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -6.0, 3.0


def clamp_through(raw: Tensor, low: float, high: float) -> Tensor:
    """`raw` within [low, high], with the gradient of `raw` itself: what is beyond can come back."""
    return raw + (raw.clamp(low, high) - raw).detach()


@dataclass(frozen=True)
class DiagonalNormal:
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

    @property
    def std_BZ(self) -> Tensor:
        return self.log_std_BZ.exp()

    def sample(self, noise_BZ: Tensor) -> Tensor:
        """mean + std · noise, with standard normal noise [B, Z] (reparametrised)."""
        return self.mean_BZ + self.std_BZ * noise_BZ

    def standardise(self, z_BZ: Tensor) -> Tensor:
        """The noise that `sample` would turn into z: η = (z − mean) / std, the abduction of (M5)."""
        return (z_BZ - self.mean_BZ) / self.std_BZ

    def kl(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) in nats, summed over latent dimensions: [B]."""
        return self.kl_by_dimension(other).sum(dim=1)

    def kl_by_dimension(self, other: "DiagonalNormal") -> Tensor:
        """KL(self ‖ other) in nats of each latent dimension: [B, Z]."""
        log_ratio_BZ = other.log_std_BZ - self.log_std_BZ
        squares_BZ = torch.exp(-2 * log_ratio_BZ) + other.standardise(self.mean_BZ).square()
        return log_ratio_BZ + 0.5 * (squares_BZ - 1)


def standard_normal(batch: int, latent: int, like: Tensor) -> DiagonalNormal:
    """N(0, I) on the device of `like`, in float32."""
    zeros_BZ = torch.zeros(batch, latent, device=like.device, dtype=torch.float32)
    return DiagonalNormal(zeros_BZ, zeros_BZ)
