"""Shuffles tests by a seed, the files and the tests of each file, so that no test relies on another."""

import random
from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Protocol, TypeVar


class InAFile(Protocol):
    """Something with the path of its file, such as pytest's items."""

    path: Hashable


Item = TypeVar("Item", bound=InAFile)


def shuffled(items: Sequence[Item], seed: str) -> list[Item]:
    """The items in shuffled order; those of one file stay together, since they share its fixtures."""
    draw = random.Random(seed)
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    draw.shuffle(files)
    for tests in files:
        draw.shuffle(tests)
    return [item for tests in files for item in tests]
