"""Upper limits on what visitors of a page may request: sizes, times and rates."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from civae_core.errors import CivaeError

MOST_CLIENTS = 1024
"""Clients whose requests are counted; the one seen least recently is forgotten first, and starts afresh."""


@dataclass(frozen=True)
class Limits:
    """Upper limits of one page, for all visitors together unless stated otherwise."""

    upload_bytes: int = 30 * 2**20
    upload_pixels: int = 50_000_000
    upload_seconds: float = 60.0
    """Time for a whole request body."""
    silence_seconds: float = 10.0
    """Time for a request's whole head; also the longest pause in sending its body or in fetching the answer."""
    question_bytes: int = 16 * 2**10
    uploads_at_once: int = 4
    waiting: int = 16
    """Requests that may wait for the model, including the one being answered; further ones are refused."""
    connections: int = 64
    photos: int = 32
    photo_bytes: int = 256 * 2**20
    """Memory for photographs and what was computed for them; the least recently used are dropped first."""
    photo_seconds: float = 1800.0
    """Time after which a photograph that nobody asks about is forgotten."""
    requests_per_second: float = 20.0
    """Questions that one client may ask per second, on average."""
    burst: float = 80.0
    """Questions that one client may ask at once."""
    upload_cost: float = 8.0
    """Number of questions that an upload counts as."""
    look_cost: float = 0.2
    """Number of questions that a GET request, such as that for one of many examples, counts as."""


class RefusedError(CivaeError):
    """A refused request, with its HTTP status."""

    def __init__(self, status: int, message: str, *, hint: str, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after = status, retry_after


class TokenBuckets:
    """A token bucket per client: it fills at `rate` tokens per second up to `burst`, and requests empty it."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` tokens if available; return the seconds to wait for them, or 0 if they were taken."""
        now = self.clock()
        tokens, since = self._buckets.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.rate)
        missing = cost - tokens
        self._buckets[client] = (tokens if missing > 0 else tokens - cost, now)
        while len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return max(missing, 0.0) / self.rate
