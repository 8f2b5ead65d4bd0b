"""What a page's visitors may ask for: sizes, times and rates, each with an upper limit."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from civae_core.errors import CivaeError

MOST_CLIENTS = 1024
"""Whose requests are counted; who was seen least recently is forgotten first, and starts anew."""


@dataclass(frozen=True)
class Limits:
    """Upper limits of one page, over all its visitors where nothing else is said."""

    upload_bytes: int = 30 * 2**20
    upload_pixels: int = 50_000_000
    upload_seconds: float = 60.0
    """For a whole request body."""
    silence_seconds: float = 10.0
    """Without a byte of a request's head or body, or without one of the answer being fetched."""
    question_bytes: int = 16 * 2**10
    uploads_at_once: int = 4
    waiting: int = 16
    """Requests that wait for the model; further ones are sent away."""
    connections: int = 64
    photos: int = 32
    photo_bytes: int = 256 * 2**20
    """Kept in memory, with what was found out about them; what was asked about least recently goes first."""
    photo_seconds: float = 1800.0
    """After which a photograph that nobody asks about is forgotten."""
    requests_per_second: float = 20.0
    """Questions of one client, on average."""
    burst: float = 80.0
    """Questions that a client may ask at once."""
    upload_cost: float = 8.0
    """Questions that an upload counts as."""
    look_cost: float = 0.2
    """Questions that a request counts as which asks no model, as for one of many examples."""


class RefusedError(CivaeError):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, message: str, *, hint: str, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after = status, retry_after


class TokenBuckets:
    """A bucket of tokens for each client: it fills at `rate` a second up to `burst`, and requests empty it."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, cost: float = 1.0) -> float:
        """Takes `cost` tokens if they are there; returns the seconds to wait for them, 0 if they were."""
        now = self.clock()
        tokens, since = self._buckets.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.rate)
        missing = cost - tokens
        self._buckets[client] = (tokens if missing > 0 else tokens - cost, now)
        while len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return max(missing, 0.0) / self.rate
