"""Photographs given by visitors, kept in memory only, with what was computed for them."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from civae_core.align.choice import Align
from civae_core.inference.edit import AbductedPictures
from civae_core.inference.pictures import Picture
from civae_core.serve.limits import Limits

MOST_KEPT = 4
"""Sets of stated attributes whose abductions are kept, per photograph and model."""


@dataclass(frozen=True)
class Abducted:
    """A photograph abducted under some stated attributes, and the scale of its effect maps."""

    pictures: AbductedPictures
    limit: float

    @cached_property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return bytes_of([self.pictures.y_BCHW, self.pictures.reconstruction_BCHW, self.pictures.parts])


def bytes_of(value: Any) -> int:
    """Size of all arrays or tensors in nested sequences, mappings and dataclasses; repeated ones count each time."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_of, value))
    if is_dataclass(value):
        return sum(bytes_of(getattr(value, part.name)) for part in fields(value))
    return 0


@dataclass
class Subject:
    """A photograph as shown to one model."""

    picture: Picture
    kept: OrderedDict[frozenset[tuple[str, float]], Abducted] = field(default_factory=OrderedDict)

    def abducted(
        self, stated: Mapping[str, float], abduct: Callable[[Picture, Mapping[str, float]], Abducted]
    ) -> Abducted:
        """The abduction under these stated attributes, computed only if it is not kept already."""
        key = frozenset(stated.items())
        found = self.kept.pop(key, None) or abduct(self.picture, stated)
        self.kept[key] = found
        while len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)
        return found

    @property
    def nbytes(self) -> int:
        """Size of everything kept."""
        return self.picture.pixels_CHW.nbytes + sum(found.nbytes for found in self.kept.values())


@dataclass
class Sitting:
    """A photograph that was given, or an example that was chosen; `subjects` are added as models are asked."""

    data: bytes = b""
    """The file's content; empty for an example."""
    example: Picture | None = None
    align: Align = Align.AUTO
    face: str = "largest"
    subjects: dict[int, Subject] = field(default_factory=dict)
    """By model number."""
    nbytes: int = field(default=0, init=False)
    """Size of the file and of all subjects when last counted."""

    def __post_init__(self) -> None:
        self.count()

    def count(self) -> None:
        """Recount the bytes; to be called only from the thread that fills `subjects`."""
        self.nbytes = len(self.data) + sum(subject.nbytes for subject in self.subjects.values())


class Sittings:
    """All sittings, limited in number, bytes and time; the least recently used is forgotten first."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._kept: OrderedDict[str, tuple[Sitting, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, sitting: Sitting) -> str:
        """Keep a sitting and return a name for it that nobody can guess."""
        name = secrets.token_urlsafe(16)
        self._kept[name] = (sitting, self.clock())
        self.make_room(sitting)
        return name

    def get(self, name: str) -> Sitting | None:
        """The sitting of this name; None if it has been forgotten or never existed."""
        self.forget_expired()
        found = self._kept.pop(name, None)
        if found is None:
            return None
        self._kept[name] = (found[0], self.clock())
        return found[0]

    def forget(self, name: str) -> None:
        """Forget the sitting of this name now."""
        self._kept.pop(name, None)

    def make_room(self, asked: Sitting) -> None:
        """Forget what exceeds the limits, except for the sitting that is being asked about."""
        self.forget_expired()
        for name in [name for name, (sitting, _) in self._kept.items() if sitting is not asked]:
            if len(self._kept) <= self.limits.photos and self._bytes <= self.limits.photo_bytes:
                return
            del self._kept[name]

    def forget_expired(self) -> float:
        """Forget what nobody asked about for too long; return the seconds until more can expire."""
        while self._kept:
            name, (_, since) = next(iter(self._kept.items()))
            left = since + self.limits.photo_seconds - self.clock()
            if left > 0:
                return left
            del self._kept[name]
        return self.limits.photo_seconds

    @property
    def _bytes(self) -> int:
        return sum(sitting.nbytes for sitting, _ in self._kept.values())
