"""Runs that went on learning their own images after they had stopped learning about others. Imports nothing heavy."""

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
"""Nats per pixel and channel by which a validation loss must have risen to be worth a word."""
MOST_TIMES = 100
"""Times that each training image may be shown before a run is warned that it will know them by heart."""
USUAL_TIMES = 30
"""Times after which held-out portraits were predicted best when 600 were learned (docs/own-data.md)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overfit:
    """Where a run's validation loss was lowest, and where it ended: nats per image."""

    best_images: int
    best_loss: float
    last_images: int
    last_loss: float

    def describe(self) -> str:
        """One sentence for whoever is about to use the run's last checkpoint."""
        return (
            f"after {self.last_images:,} images, held-out ones are predicted worse than after {self.best_images:,} "
            f"(valid_loss {self.last_loss:,.0f} against {self.best_loss:,.0f}): it memorises its training images"
        )


def overfit_of(run: Path) -> Overfit | None:
    """How far a run's last checkpoint fell behind its best; None where it did not clearly, or nobody can tell.

    Args:
        run: a run's folder; anything else, a checkpoint that was named itself included, is answered None.
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
        return None  # whoever opens the model says what is wrong with it
    if not losses:
        return None
    (last_images, last_loss), (best_images, best_loss) = losses[-1], min(losses, key=lambda found: found[1])
    if last_loss - best_loss <= CLEARLY * values:
        return None
    return Overfit(best_images, best_loss, last_images, last_loss)


def warn_if_overfit(run: Path) -> None:
    """Says, where a run's name means a last checkpoint that fell behind its best, how to have the other one."""
    if found := overfit_of(run):
        log.warning("%s: %s; %s was saved before that", run, found.describe(), run / "checkpoints" / "best")


def too_long(images: int, photographs: int) -> str | None:
    """A sentence about a training that shows each image so often that it will be learned by heart; else None.

    Args:
        images: `train.images`.
        photographs: training images.
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
