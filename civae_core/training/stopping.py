"""Requests to stop: SIGTERM and SIGUSR1 (preemption) and Ctrl-C end training at the next step, after saving."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from civae_core.errors import InterruptedRunError, PreemptedError

PREEMPTED, INTERRUPTED = 1, 2

_NAMES = ("SIGTERM", "SIGUSR1", "SIGINT")


class StopRequest:
    """Set by a signal handler, read by the loop; the larger reason wins."""

    def __init__(self) -> None:
        self.reason = 0

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason == INTERRUPTED:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the save
        self.reason = max(self.reason, INTERRUPTED if number == signal.SIGINT else PREEMPTED)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the signals while the block runs; outside the main thread, catch none.

    Afterwards the request also holds for a block around this one, which may have more to do.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # Windows has no SIGUSR1
    previous = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        around = getattr(previous[signal.SIGTERM], "__self__", None)
        if isinstance(around, StopRequest) and request.reason > around.reason:
            around.reason = request.reason


@contextmanager
def stopping_after() -> Iterator[None]:
    """Catch the signals while one of several steps runs, and end the work after a step that did not end by itself.

    Raises:
        PreemptedError, InterruptedRunError: a signal asked to stop; the step is complete.
    """
    with stop_on_signals() as stop:
        yield
    if stop.reason:
        raise stopped(stop.reason)


def stopped(
    reason: int, message: str = "stopped; finished work is kept"
) -> PreemptedError | InterruptedRunError:
    """The error that ends work which was asked to stop; running the same command again must continue it."""
    kind = InterruptedRunError if reason == INTERRUPTED else PreemptedError
    return kind(message, hint="run the same command again to continue")
