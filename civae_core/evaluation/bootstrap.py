"""Intervals over images: the 95 % percentile bootstrap of means and of ratios of sums (METHOD 6).

The images are resampled, not the pixels: an interval says how far the number would move with other test images
of the same kind. It does not cover another training seed.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95
_INDICES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its interval; `mean` is the estimate on the images themselves."""

    mean: float
    lo: float
    hi: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def map(self, function: Callable[[float], float]) -> "Interval":
        """The interval of an increasing function of the estimate, such as a square root."""
        return Interval(function(self.mean), function(self.lo), function(self.hi))


def bootstrap_mean(values_N: Tensor, *, seed: int = 0) -> Interval:
    """The mean of values [N] with its interval.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    return bootstrap_ratio(values_N, torch.ones_like(values_N, dtype=torch.float64), seed=seed)


def bootstrap_ratio(numerator_N: Tensor, denominator_N: Tensor, *, seed: int = 0) -> Interval:
    """Σ numerator / Σ denominator over images [N], with its interval.

    Args:
        numerator_N: one finite term per image.
        denominator_N: one finite, non-negative term per image, not all 0.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: there are no terms, some are not finite, or all denominators are 0.
    """
    terms_N2 = torch.stack([numerator_N, denominator_N], dim=1).detach().to("cpu").to(torch.float64)
    count = len(terms_N2)
    if not count or not bool(terms_N2.isfinite().all()):
        raise ValueError(f"an interval needs finite values of at least one image, not {numerator_N}")
    sums_2 = terms_N2.sum(0)
    if float(sums_2[1]) <= 0.0:
        raise ValueError("a ratio of sums needs a positive denominator")
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _INDICES_AT_ONCE // count)
    ratios = []
    for start in range(0, RESAMPLES, chunk):
        drawn_RN = torch.randint(count, (min(chunk, RESAMPLES - start), count), generator=generator)
        sums_R2 = terms_N2[drawn_RN].sum(1)
        ratios.append(sums_R2[:, 0] / sums_R2[:, 1])
    ratio_R = torch.cat(ratios)
    # A resample of images that all have denominator 0 says nothing about the ratio.
    ratio_R = ratio_R[ratio_R.isfinite()]
    tail = (1.0 - LEVEL) / 2.0
    lo, hi = ratio_R.quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Interval(float(sums_2[0] / sums_2[1]), lo, hi)
