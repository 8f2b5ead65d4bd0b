"""Assignment of images to the train, valid and test splits."""

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from civae_core.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Names of the splits; a split is stored as its index in this tuple."""

_SPELLINGS = (
    ("train", "training", "0"),
    ("valid", "val", "validation", "dev", "1"),
    ("test", "testing", "2"),
)
_CODES = {spelling: code for code, spellings in enumerate(_SPELLINGS) for spelling in spellings}


def split_code(cell: object, where: str) -> int:
    """Code of a split as written in tables: train, valid (val, validation, dev), test, or CelebA's 0, 1, 2.

    Raises:
        DataError: the cell is anything else; the message starts with `where`.
    """
    code = _CODES.get(str(cell).strip().casefold())
    if code is None:
        raise DataError(f"{where}: split is {cell!r}", hint="write train, valid or test")
    return code


def hashed_splits(file_names: Iterable[str], seed: int) -> np.ndarray:
    """Splits 80/10/10 by a hash of each file name and the seed, uint8 [N]; adding files never moves the others."""

    def share(name: str) -> float:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    bounds = np.array([0.8, 0.9])
    return np.searchsorted(bounds, [share(name) for name in file_names], side="right").astype(np.uint8)
