"""Intervals over images: the 95 % percentile bootstrap of means and of ratios of sums (METHOD 6).

Images are resampled, not pixels: an interval says how far the number would move with other test images of the same
kind. It does not cover the variation between training seeds.

A single image has no interval, because it says nothing about others. Shares have score intervals instead. If all of
500 images show something, every resample shows it too, and the bootstrap would report a share of 1 with certainty.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95
HALF_WIDTH = 1.959964
"""Half the width of a 95 % interval, in standard deviations of a normal distribution."""
_INDICES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its interval, if it has one; `mean` is the estimate without resampling."""

    mean: float
    lo: float | None = None
    hi: float | None = None

    def to_dict(self) -> dict[str, float]:
        """{"mean", "lo", "hi"}; bounds that are not known are absent."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __format__(self, spec: str) -> str:
        """The mean and, in square brackets, the bounds, if they are known; `spec` is that of each number."""
        bounds = [format(bound, spec) for bound in (self.lo, self.hi) if bound is not None]
        return f"{self.mean:{spec}} [{', '.join(bounds)}]" if bounds else format(self.mean, spec)

    def map(self, function: Callable[[float], float]) -> "Interval":
        """The interval of an increasing function of the estimate, such as a square root."""
        return Interval(**{key: function(value) for key, value in self.to_dict().items()})


def bootstrap_mean(values_N: Tensor, *, seed: int = 0) -> Interval:
    """The mean of values [N] with its interval, which a single value does not have.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    return bootstrap_ratio(values_N, torch.ones_like(values_N, dtype=torch.float64), seed=seed)


def bootstrap_ratio(numerator_N: Tensor, denominator_N: Tensor, *, seed: int = 0) -> Interval:
    """Σ numerator / Σ denominator over images [N], with its interval, which a single image does not have.

    Args:
        numerator_N: one finite term per image.
        denominator_N: one finite, non-negative term per image, not all 0.
        seed: seeds the resampling; the same seed gives the same interval.

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
    ratio = float(sums_2[0] / sums_2[1])
    if count == 1:
        return Interval(ratio)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _INDICES_AT_ONCE // count)
    ratios = []
    for start in range(0, RESAMPLES, chunk):
        drawn_RN = torch.randint(count, (min(chunk, RESAMPLES - start), count), generator=generator)
        sums_R2 = terms_N2[drawn_RN].sum(1)
        ratios.append(sums_R2[:, 0] / sums_R2[:, 1])
    ratio_R = torch.cat(ratios)
    # A resample in which every denominator is 0 says nothing about the ratio.
    ratio_R = ratio_R[ratio_R.isfinite()]
    tail = (1.0 - LEVEL) / 2.0
    lo, hi = ratio_R.quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Interval(ratio, lo, hi)


def share_interval(is_so_N: Tensor) -> Interval:
    """The share of 1s among values [N] that are 0 or 1, with Wilson's interval, whose width is never 0.

    Raises:
        ValueError: there are no values, or values other than 0 and 1.
    """
    _require_among((0, 1), is_so_N)
    share = float(is_so_N.double().mean())
    return Interval(share, *wilson_interval(share, len(is_so_N)))


def share_change_interval(change_N: Tensor) -> Interval:
    """The difference of two shares of the same images, with Bonett and Price's (2012) interval, never of width 0.

    Args:
        change_N: per image, 1 (counts only towards the first share), −1 (only the second) or 0 (both or neither).

    Raises:
        ValueError: there are no values, or values other than −1, 0 and 1.
    """
    _require_among((-1, 0, 1), change_N)
    change = float(change_N.double().mean())
    # One image is added to the gains and one to the losses, two in all.
    count = len(change_N) + 2
    gained, lost = (((change_N == way).sum().item() + 1) / count for way in (1, -1))
    centre = gained - lost
    half = HALF_WIDTH * math.sqrt((gained + lost - centre**2) / count)
    return Interval(change, max(-1.0, min(change, centre - half)), min(1.0, max(change, centre + half)))


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share observed in `count` cases; also sensible for shares of 0 and 1."""
    shrink = 1 + HALF_WIDTH**2 / count
    centre = (share + HALF_WIDTH**2 / (2 * count)) / shrink
    half = HALF_WIDTH / shrink * math.sqrt(share * (1 - share) / count + HALF_WIDTH**2 / (4 * count**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _require_among(allowed: tuple[int, ...], values_N: Tensor) -> None:
    known = torch.tensor(allowed, dtype=torch.float64)
    if not len(values_N) or not bool(torch.isin(values_N.detach().cpu().double(), known).all()):
        raise ValueError(
            f"an interval of a share needs values of at least one image among {allowed}, not {values_N}"
        )
