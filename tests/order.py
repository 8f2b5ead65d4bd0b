"""The order of tests, drawn by a seed: files in any order, and the tests of each, so that none relies on another."""

import random
from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Protocol, TypeVar


class InAFile(Protocol):
    """As pytest's items are."""

    path: Hashable


Item = TypeVar("Item", bound=InAFile)


def shuffled(items: Sequence[Item], seed: str) -> list[Item]:
    """The same items; those of one file, which share what it makes, stay together."""
    draw = random.Random(seed)
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    draw.shuffle(files)
    for tests in files:
        draw.shuffle(tests)
    return [item for tests in files for item in tests]
