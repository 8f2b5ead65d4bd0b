"""The photographs that visitors have given, in memory only, with what was found out about them."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from civae_core.inference.edit import AbductedPictures
from civae_core.inference.pictures import Picture
from civae_core.serve.limits import Limits

MOST_KEPT = 4
"""Answers to "which attributes are stated?" that are kept of one photograph and model."""


@dataclass(frozen=True)
class Abducted:
    """A photograph abducted under some stated attributes, and the scale of its effect maps."""

    pictures: AbductedPictures
    limit: float


@dataclass
class Subject:
    """A photograph as one model is shown it."""

    picture: Picture
    kept: OrderedDict[frozenset[tuple[str, float]], Abducted] = field(default_factory=OrderedDict)

    def abducted(
        self, stated: Mapping[str, float], abduct: Callable[[Picture, Mapping[str, float]], Abducted]
    ) -> Abducted:
        """What is known under these stated attributes, found out only if it is not known yet."""
        key = frozenset(stated.items())
        found = self.kept.pop(key, None) or abduct(self.picture, stated)
        self.kept[key] = found
        while len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)
        return found


@dataclass
class Sitting:
    """A photograph that was given, or an example that was chosen; `subjects` are filled as models are asked."""

    data: bytes = b""
    """The file's content; nothing of an example."""
    example: Picture | None = None
    align: str = "auto"
    face: str = "largest"
    subjects: dict[int, Subject] = field(default_factory=dict)
    """By the number of the model."""


class Sittings:
    """Bounded in number, bytes and time: what was asked about least recently is forgotten first."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._kept: OrderedDict[str, tuple[Sitting, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, sitting: Sitting) -> str:
        """Keeps it, under a name that nobody can guess."""
        name = secrets.token_urlsafe(16)
        self._kept[name] = (sitting, self.clock())
        self._forget_expired()
        while len(self._kept) > self.limits.photos or self._bytes > self.limits.photo_bytes:
            self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Sitting | None:
        """The sitting of that name, None if it is forgotten or never was."""
        self._forget_expired()
        found = self._kept.pop(name, None)
        if found is None:
            return None
        self._kept[name] = (found[0], self.clock())
        return found[0]

    def forget(self, name: str) -> None:
        """Lets go of it now."""
        self._kept.pop(name, None)

    @property
    def _bytes(self) -> int:
        return sum(len(sitting.data) for sitting, _ in self._kept.values())

    def _forget_expired(self) -> None:
        while self._kept:
            name, (_, since) = next(iter(self._kept.items()))
            if self.clock() - since <= self.limits.photo_seconds:
                return
            del self._kept[name]
