"""Detection of runs that memorise their training images and get worse on others. Imports nothing heavy."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from civae_core.errors import CivaeError
from civae_core.measured import lines_of, told_by
from civae_core.model_header import read_header
from civae_core.model_paths import FILE_NAME, follow
from civae_core.reading import finite_number

CLEARLY = 0.01
"""Nats per pixel and channel by which a validation loss must have risen before it is reported."""
MOST_TIMES = 100
"""How often each training image may be shown before a warning that the images will be memorised."""
USUAL_TIMES = 30
"""How often each image was shown when held-out portraits were predicted best, training on 600 (docs/own-data.md)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overfit:
    """A run's lowest and last validation loss, in nats per image, and the images seen by then."""

    best_images: int
    best_loss: float
    last_images: int
    last_loss: float

    def describe(self) -> str:
        """One sentence for users of the run's last checkpoint."""
        return (
            f"after {self.last_images:,} images, held-out ones are predicted worse than after {self.best_images:,} "
            f"(valid_loss {self.last_loss:,.0f} against {self.best_loss:,.0f}): it memorises its training images"
        )


def overfit_of(run: Path) -> Overfit | None:
    """How far a run's last checkpoint fell behind its best; None if not clearly, or if that is unknown.

    Args:
        run: a run's folder; for anything else, such as a single checkpoint, the result is None.
    """
    checkpoints = run / "checkpoints"
    last, best = follow(checkpoints / "last") / FILE_NAME, follow(checkpoints / "best") / FILE_NAME
    try:
        if not best.is_file() or last.resolve() == best.resolve():
            return None
        shape = json.loads(read_header(last)["__metadata__"]["civae"])["preprocessing"]
        values = int(shape["size"]) ** 2 * int(shape["channels"])
        losses = _validation_losses(run / "metrics.jsonl")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CivaeError):
        return None  # opening the model reports what is wrong with it
    if not losses:
        return None
    (last_images, last_loss), (best_images, best_loss) = losses[-1], min(losses, key=lambda found: found[1])
    if last_loss - best_loss <= CLEARLY * values:
        return None
    return Overfit(best_images, best_loss, last_images, last_loss)


def warn_if_overfit(run: Path) -> None:
    """Warn if a run's last checkpoint, which its name stands for, fell behind the best; say where the best is."""
    if found := overfit_of(run):
        log.warning("%s: %s; %s was saved before that", run, found.describe(), run / "checkpoints" / "best")


def too_long(images: int, photographs: int) -> str | None:
    """A warning if training shows each image so often that it will be memorised; else None.

    Args:
        images: `train.images`.
        photographs: number of training images.
    """
    times = images / max(photographs, 1)
    if times <= MOST_TIMES:
        return None
    usual = float(f"{USUAL_TIMES * photographs:.2g}")
    return (
        f"train.images {images:,}: each of {photographs:,} training images is shown {times:,.0f} times, and "
        f"so few are memorised; start with about {USUAL_TIMES} times, train.images={usual:.0f}"
    )


def _validation_losses(metrics: Path) -> list[tuple[int, float]]:
    """Images seen and validation loss at each checkpoint, in the order of the file."""
    found = []
    for values in (told_by(line) for line in lines_of(metrics) if '"valid_loss"' in line):
        images, loss = (finite_number(values.get(key)) for key in ("images", "valid_loss"))
        if images is not None and loss is not None:
            found.append((int(images), loss))
    return found
