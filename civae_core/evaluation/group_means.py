"""Mean images of groups of subjects, computed in one pass, and how far estimated means are from the true ones.

A mean is over whole images, so there are no values per image to resample. Instead, sums are kept by block of
subjects, and intervals come from leaving out one block at a time (the delete-a-group jackknife).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCKS = 10
MOST_BYTES = 64 * 2**20
"""Limit for one set of sums; larger ones are not split into blocks, and have no intervals."""
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5 % quantiles of Student's t with 1, 2, … BLOCKS − 1 degrees of freedom."""


class GroupMeans:
    """The mean image of each group of subjects.

    Args:
        member_GN: bool [G,N], which subjects belong to which group.
        blocks: number of blocks of subjects whose sums are kept apart.

    Raises:
        ValueError: there are no groups, or one has no members.
    """

    def __init__(self, member_GN: Tensor, blocks: int = 1) -> None:
        if not len(member_GN) or not bool(member_GN.any(dim=1).all()):
            raise ValueError("a mean needs at least one subject in each group")
        block_N = torch.arange(member_GN.shape[1]) % blocks
        in_block_KN = block_N == torch.arange(blocks)[:, None]
        self._member_KGN = member_GN & in_block_KN[:, None]
        self._sums_KGCHW: Tensor | None = None

    def add(self, start: int, images_BCHW: Tensor) -> None:
        """Add images of the subjects `start`, `start + 1`, …"""
        items = slice(start, start + len(images_BCHW))
        images_BCHW = images_BCHW.detach().cpu().double()  # in this order: some devices have no float64
        if self._sums_KGCHW is None:
            shape = (*self._member_KGN.shape[:2], *images_BCHW.shape[1:])
            self._sums_KGCHW = torch.zeros(shape, dtype=torch.float64)
        member_KGB = self._member_KGN[:, :, items].double()
        self._sums_KGCHW += torch.einsum("kgb,bchw->kgchw", member_KGB, images_BCHW)

    @property
    def mean_GCHW(self) -> Tensor:
        """The mean image of each group, float64."""
        return self.sums_KGCHW.sum(0) / self.count_KG.sum(0)[:, None, None, None]

    @property
    def without_KGCHW(self) -> Tensor:
        """The means with one block left out at a time; not finite for a group that this leaves empty."""
        sums_KGCHW, count_KG = self.sums_KGCHW, self.count_KG
        left_KG = count_KG.sum(0) - count_KG
        return (sums_KGCHW.sum(0) - sums_KGCHW) / left_KG[:, :, None, None, None]

    @property
    def sums_KGCHW(self) -> Tensor:
        """
        Raises:
            ValueError: nothing was added.
        """
        if self._sums_KGCHW is None:
            raise ValueError("no images were added")
        return self._sums_KGCHW

    @property
    def member_GN(self) -> Tensor:
        """Which subjects belong to which group, bool."""
        return self._member_KGN.any(dim=0)

    @property
    def count_KG(self) -> Tensor:
        """Number of subjects by block and group, float64."""
        return self._member_KGN.sum(dim=2, dtype=torch.float64)


def affordable_blocks(groups: int, values: int) -> int:
    """BLOCKS, or 1 where so many blocks of sums for images of `values` values would take too much memory."""
    return BLOCKS if BLOCKS * groups * values * 8 <= MOST_BYTES else 1


@dataclass(frozen=True)
class MeanErrors:
    """‖estimate − truth‖ / ‖truth‖ of the mean images of each group; not finite where the true mean is 0."""

    error_G: Tensor
    without_KG: Tensor | None
    """The same with one block of subjects left out at a time; None for means that were not kept by blocks."""
    held_KG: Tensor
    """Which blocks hold subjects of which groups, bool."""
    chance_G: Tensor | None = None
    """The error to expect by chance with so few subjects if the estimate is right on average; see `of`."""

    @classmethod
    def of(cls, estimate: GroupMeans, truth: GroupMeans, apart_N: Tensor | None = None) -> "MeanErrors":
        """
        Args:
            apart_N: ‖estimate − truth‖² of each subject. An estimate that is right on average but not for each
                subject, such as one from other subjects with the same covariates, is off by
                √(variance of the difference / number of subjects), which only more subjects can reduce.
        """
        blocks = len(truth.count_KG)
        return cls(
            _relative(estimate.mean_GCHW, truth.mean_GCHW),
            _relative(estimate.without_KGCHW, truth.without_KGCHW) if blocks > 1 else None,
            truth.count_KG > 0,
            None if apart_N is None else _chance(estimate, truth, apart_N),
        )

    def mean(self, groups: Sequence[int]) -> dict[str, float]:
        """The mean of some groups' errors, with its 95 % interval over subjects, {"mean", "lo", "hi"}.

        The interval is absent where one block holds a whole group, so that it cannot be computed. Blocks that hold
        none of the subjects, of whom there may be fewer than blocks, do not count. Where chance is known, there are
        also `chance` and `corrected`, the mean of √max(0, error² − chance²): chance adds to the square of an error,
        and the interval is too high by as much as the error.
        """
        found = {"mean": float(self.error_G[groups].mean())}
        if self.chance_G is not None and bool(self.chance_G[groups].isfinite().all()):
            error_G, chance_G = self.error_G[groups], self.chance_G[groups]
            found["chance"] = float(chance_G.mean())
            found["corrected"] = float((error_G.square() - chance_G.square()).clamp(min=0).sqrt().mean())
        if self.without_KG is None:
            return found
        held_K = self.held_KG[:, groups].any(dim=1)
        without_K = self.without_KG[held_K][:, groups].mean(dim=1)
        if not bool(without_K.isfinite().all()):
            return found
        freedom = len(without_K) - 1
        spread = (freedom * (without_K - without_K.mean()).square().mean()).sqrt()
        reach = _STUDENT[freedom - 1] * float(spread)
        return found | {"lo": max(0.0, found["mean"] - reach), "hi": found["mean"] + reach}

    def known(self, groups: Sequence[int]) -> list[int]:
        """Those of the groups whose error is known, because their true mean is not 0."""
        return [g for g in groups if bool(self.error_G[g].isfinite())]


def apart_from(estimate_BCHW: Tensor, truth_BCHW: Tensor) -> Tensor:
    """‖estimate − truth‖² of each subject, float64 [B] on the CPU."""
    return (estimate_BCHW - truth_BCHW).flatten(1).cpu().double().square().sum(1)


def compared(
    errors: MeanErrors, labels: Sequence[str], counts: Sequence[int], groups: Sequence[int]
) -> dict[str, Any]:
    """The mean of some groups' errors, the worst group, and all groups, worst first; {} if no error is known.

    Args:
        labels, counts: of all groups.
        groups: indices of the groups to compare.
    """
    known = errors.known(groups)
    if not known:
        return {}
    rows: list[dict[str, Any]] = [{"group": labels[g], "n": counts[g], **errors.mean([g])} for g in known]
    ranked = sorted(rows, key=lambda row: -row["mean"])
    return {**errors.mean(known), "worst": ranked[0], "groups": ranked}


def _chance(estimate: GroupMeans, truth: GroupMeans, apart_N: Tensor) -> Tensor:
    """√(Σ‖dᵢ − d̄‖² / (n−1) / n) / ‖truth‖ of each group, for the differences dᵢ of its n subjects."""
    member_GN = truth.member_GN.double()
    count_G = member_GN.sum(1)
    true_GCHW = truth.mean_GCHW
    shift_G = (estimate.mean_GCHW - true_GCHW).flatten(1).square().sum(1)
    variance_G = (member_GN @ apart_N.cpu().double() / count_G - shift_G) / (count_G - 1)
    return variance_G.clamp(min=0).sqrt() / true_GCHW.flatten(1).norm(dim=1)


def _relative(estimate: Tensor, truth: Tensor) -> Tensor:
    """‖estimate − truth‖ / ‖truth‖ over the last three dimensions."""
    size = truth.flatten(-3).norm(dim=-1)
    error = (estimate - truth).flatten(-3).norm(dim=-1) / size
    return torch.where(size > 0, error, torch.nan)
