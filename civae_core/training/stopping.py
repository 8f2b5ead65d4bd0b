"""Requests to stop: SIGTERM and SIGUSR1 (preemption) and Ctrl-C end training at the next step, after saving."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
    """Catch the signals while the block runs; outside the main thread, catch none."""
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
