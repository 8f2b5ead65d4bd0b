"""Whether a picture is of the kind that a model has learned: how well the model reconstructs it.

A counterfactual changes what the model makes of a picture. Of one that it cannot even reconstruct it says little. So
every checkpoint remembers how far f(z,t) was from held-out images, and a picture that is farther off than nearly all
of them is reported. The limit is the ⌈(n+1)·99 %⌉-th smallest of n errors, as in split conformal prediction (Lei et
al. 2018): of new pictures of the same kind at most one in a hundred exceeds it on average, whatever their errors look
like. Fewer than 99 images have no such limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.99
"""Share of new pictures of the same kind that stay within the limit."""
HINT = "crop pictures like the training images, or find faces with --align always; other kinds need another model"


@dataclass(frozen=True)
class Familiarity:
    """Reconstruction errors of images that a model did not learn from (τ = 0, mean squares over pixels in [0,1])."""

    median: float
    limit: float
    """What a share of `level` of new pictures of their kind stays within."""
    level: float
    images: int
    """Images that both rest on."""
    split: str
    """The split that they are from."""

    def excess(self, error: float) -> float | None:
        """By which factor an error exceeds the limit, more than 1; None where it does not."""
        return error / self.limit if error > self.limit else None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Familiarity":
        """
        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is damaged, or says what cannot be.
        """
        median, limit, level = (float(values[key]) for key in ("median", "limit", "level"))
        images, split = values["images"], values["split"]
        if not (0.0 <= median <= limit < math.inf and limit > 0.0 and 0.0 < level < 1.0):
            raise ValueError(f"reconstruction errors of {median} (median) and {limit} (of {level})")
        if type(images) is not int or images < 1 or not isinstance(split, str):
            raise ValueError(f"reconstruction errors of {images!r} images of {split!r}")
        return cls(median, limit, level, images, split)


def reconstruction_errors(y_BCHW: np.ndarray, reconstruction_BCHW: np.ndarray) -> np.ndarray:
    """Mean squared error of each image [B], in float64."""
    errors_B: np.ndarray = np.square(reconstruction_BCHW.astype(np.float64) - y_BCHW).mean(axis=(1, 2, 3))
    return errors_B


def fit_familiarity(errors_N: np.ndarray, split: str) -> Familiarity | None:
    """The limit that these errors set; None where they are too few for one, or not all finite.

    Args:
        errors_N: of images that the model did not learn from.
        split: where they are from, to be remembered.
    """
    images = len(errors_N)
    rank = math.ceil((images + 1) * LEVEL)
    if rank > images or not np.isfinite(errors_N).all():
        return None
    limit = float(np.sort(errors_N)[rank - 1])
    return Familiarity(float(np.median(errors_N)), limit, LEVEL, images, split) if limit > 0.0 else None


def describe_unfamiliar(excesses: Sequence[tuple[str, float]], pictures: int) -> str:
    """A sentence on the pictures beyond the limit.

    Args:
        excesses: their names and the factors by which they exceed it, at least one.
        pictures: how many were asked about, those included.
    """
    worse = f"reconstructed worse than {LEVEL:.0%} of held-out images"
    if pictures == 1:
        ((name, excess),) = excesses
        beyond = f"{excess:.1f} times the limit" if excess >= 1.05 else "just beyond the limit"
        return (
            f"{name}: unlike what the model learned from ({worse}, {beyond}); its counterfactual means little"
        )
    are = "is" if len(excesses) == 1 else "are"
    return (
        f"{len(excesses)} of {pictures} pictures {are} unlike what the model learned from ({worse}); their "
        "counterfactuals mean little (`unfamiliar` in their records says by how much)"
    )
