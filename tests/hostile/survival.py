"""The rule for hostile input, a correct result or a civae error in bounded time, and a tally of what was tried."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from civae_core.errors import CivaeError, DataError, UsageError

Result = TypeVar("Result")
SECONDS = 60
"""Limit on the computing time of one input; all inputs are small."""
MINUTES = 5
"""Limit on the waiting time for one input; the machine may have much else to do."""

tried: Counter[str] = Counter()
"""Number of inputs by target; the source of the fuzzing script's figures."""


class HangError(AssertionError):
    """An input kept its reader busy for too long."""


def survives(
    target: str,
    read: Callable[[], Result],
    *,
    may_raise: type[CivaeError] | tuple[type[CivaeError], ...] = (DataError, UsageError),
) -> Result | None:
    """Read one input; None if it is refused by an error of the kinds that a user can understand.

    Any other exception, an unreadable message, and a hang are failures.
    """
    tried[target] += 1
    try:
        with _deadline(target):
            return read()
    except may_raise as error:
        assert error.message.strip(), "an error says what is wrong"
        assert "Traceback" not in error.message
        assert max(map(len, error.message.splitlines())) < 700, (
            "an error is a sentence, not a copy of the input"
        )
        assert all(line.isprintable() for line in error.message.split("\n")), (
            "and does not command the terminal"
        )
        return None


@contextmanager
def _deadline(target: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise HangError(f"{target}: still busy after {SECONDS} s of computing or {MINUTES} minutes")

    timers = {signal.ITIMER_PROF: SECONDS, signal.ITIMER_REAL: 60 * MINUTES}
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    for timer, seconds in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
