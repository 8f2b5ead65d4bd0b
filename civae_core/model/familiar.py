"""Whether a picture resembles the training images, judged by how well the model reconstructs it.

A counterfactual changes the model's reconstruction, so it means little for a picture that the model cannot even
reconstruct. Every checkpoint therefore stores how far f(z,t) was from held-out images, and pictures with a larger
error than nearly all of these are reported. The limit is the ⌈(n+1)·99 %⌉-th smallest of n errors, as in split
conformal prediction (Lei et al. 2018): on average at most one in a hundred new pictures of the same kind exceeds it,
whatever the distribution of errors. Fewer than 99 images give no such limit.
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
    """Reconstruction errors (MSE of pixels in [0,1], τ = 0) of images that the model was not trained on."""

    median: float
    limit: float
    """The error that a share `level` of new pictures of the same kind does not exceed."""
    level: float
    images: int
    """Number of images from which median and limit were computed."""
    split: str
    """The split that these images are from."""

    def excess(self, error: float) -> float | None:
        """The factor (above 1) by which an error exceeds the limit; None if it does not."""
        return error / self.limit if error > self.limit else None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Familiarity":
        """
        Raises:
            KeyError, TypeError, ValueError, AttributeError: `values` is damaged or holds impossible values.
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
    """Median and limit of these errors; None if they are too few for a limit, not all finite, or (nearly) all zero.

    Args:
        errors_N: reconstruction errors of images that the model was not trained on.
        split: the split that the images are from, recorded in the result.
    """
    images = len(errors_N)
    rank = math.ceil((images + 1) * LEVEL)
    if rank > images or not np.isfinite(errors_N).all():
        return None
    limit = float(np.sort(errors_N)[rank - 1])
    return Familiarity(float(np.median(errors_N)), limit, LEVEL, images, split) if limit > 0.0 else None


def describe_unfamiliar(excesses: Sequence[tuple[str, float]], pictures: int) -> str:
    """A sentence about the pictures that exceed the limit.

    Args:
        excesses: their names and the factors by which they exceed it; at least one.
        pictures: number of pictures checked, including those within the limit.
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
