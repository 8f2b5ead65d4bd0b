"""A data set of faces: the training split follows the process; held-out faces are randomised to cover every cell."""

import torch

from civae_core.errors import UsageError
from civae_core.synthetic.process import FaceProcess, Subjects


def split_sizes(count: int) -> tuple[int, int, int]:
    """Sizes of the training, validation and test splits of `count` faces: 80, 10 and 10 %.

    Raises:
        UsageError: fewer than 10 faces.
    """
    if count < 10:
        raise UsageError(f"--n {count} is too few", hint="use at least 10, so that each split has an image")
    held_out = count // 10
    return count - 2 * held_out, held_out, held_out


def require_overlap(overlap: float) -> None:
    """Raise a UsageError for an overlap outside (0, 1]."""
    if not 0 < overlap <= 1:
        raise UsageError(
            f"--overlap {overlap:g} is outside (0, 1]",
            hint="1 randomises the treatment, 0.5 resembles CelebA, and near 0 it follows the covariates",
        )


def people(process: FaceProcess, rows: range, train: int) -> Subjects:
    """The subjects at `rows` of a data set: rows below `train` follow the process, the others are randomised."""
    seen = range(min(rows.start, train), min(rows.stop, train))
    unseen = range(max(rows.start, train), max(rows.stop, train))
    parts = (
        process.subjects(seen.start, len(seen)),
        process.subjects(unseen.start, len(unseen), randomised=True),
    )
    return Subjects(
        torch.cat([part.noise_NK for part in parts]),
        {name: torch.cat([part.roots[name] for part in parts]) for name in parts[0].roots},
        process.ageing,
    )
