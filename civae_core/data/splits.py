"""Which images train, validate and test."""

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from civae_core.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""The splits' names; a split is stored as its place in this tuple."""

_SPELLINGS = (
    ("train", "training", "0"),
    ("valid", "val", "validation", "dev", "1"),
    ("test", "testing", "2"),
)
_CODES = {spelling: code for code, spellings in enumerate(_SPELLINGS) for spelling in spellings}


def split_code(cell: object, where: str) -> int:
    """The code of a split as tables write it: train, valid (val, validation, dev), test, or CelebA's 0, 1, 2.

    Raises:
        DataError: anything else; the message starts with `where`.
    """
    code = _CODES.get(str(cell).strip().casefold())
    if code is None:
        raise DataError(f"{where}: split is {cell!r}", hint="write train, valid or test")
    return code


def hashed_splits(file_names: Iterable[str], seed: int) -> np.ndarray:
    """Splits 80/10/10 by a hash of each file's name, uint8 [N]: adding files never moves the others."""

    def share(name: str) -> float:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    bounds = np.array([0.8, 0.9])
    return np.searchsorted(bounds, [share(name) for name in file_names], side="right").astype(np.uint8)
