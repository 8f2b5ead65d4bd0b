"""Progress on stderr, from the first process only: a bar on a terminal, else a line every few seconds."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TextIO

SECONDS_BETWEEN_LINES = 5.0

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


class Progress(Protocol):
    """How a loop reports its progress."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Report `n` more units done, and values to show beside the count until they are replaced."""


def set_quiet(quiet: bool) -> None:
    """Silence or allow all progress that starts later in this context."""
    _quiet.set(quiet)


def is_first_process() -> bool:
    """Whether this is the only process, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress(
    description: str,
    total: int | None,
    unit: str = "images",
    start: int = 0,
    enabled: bool = True,
) -> Iterator[Progress]:
    """Show the progress of a loop.

    Args:
        description: what is being done, such as "training".
        total: total number of units, or None if that is not known.
        unit: what is counted.
        start: units already done before this loop (of a resumed run); they do not count towards its speed.
        enabled: False shows nothing, as do quiet mode and any process but the first.
    """
    if not enabled or _quiet.get() or not is_first_process():
        yield _Silent()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bar(description, total, unit, start) as shown:
            yield shown
    else:
        lines = PlainLines(description, total, unit, start)
        yield lines
        lines.finish()


class _Silent:
    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Show nothing."""


class PlainLines:
    """One line every few seconds, and one at the end: for logs of batch jobs."""

    def __init__(
        self,
        description: str,
        total: int | None,
        unit: str,
        start: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description, self.total, self.unit, self.start = description, total, unit, start
        self.stream, self.clock = stream, clock
        self.done = start
        self.shown: int | None = None
        self.fields: dict[str, float | str] = {}
        self.began = self.last = clock()

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Count, and print a line if the last one is old enough."""
        self.done += n
        self.fields.update(fields)
        if self.clock() - self.last >= SECONDS_BETWEEN_LINES:
            self._print()

    def finish(self) -> None:
        """Print the final count, unless it was the last thing printed."""
        if self.done != self.shown:
            self._print()

    def _print(self) -> None:
        self.last, self.shown = self.clock(), self.done
        line = describe(
            self.description,
            self.done,
            self.total,
            self.unit,
            self.start,
            self.last - self.began,
            self.fields,
        )
        print(line, file=self.stream or sys.stderr, flush=True)


def describe(
    description: str,
    done: int,
    total: int | None,
    unit: str,
    start: int,
    seconds: float,
    fields: dict[str, float | str],
) -> str:
    """One line such as `training: 1,280/20,000 images (6 %), 312 images/s, 1m 00s left, loss 3.21`."""
    count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
    share = f" ({min(100 * done // total, 100)} %)" if total else ""
    parts = [f"{description}: {count} {unit}{share}"]
    speed = (done - start) / seconds if seconds > 0 else 0.0
    if speed > 0:
        parts.append(f"{_number(speed)} {unit}/s")
        if total is not None and done < total:
            parts.append(f"{duration((total - done) / speed)} left")
    parts += [f"{name} {_number(value)}" for name, value in fields.items()]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as `4s`, `3m 07s` or `2h 05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@contextmanager
def _bar(description: str, total: int | None, unit: str, start: int) -> Iterator[Progress]:
    """A live bar; whatever is written to stderr meanwhile appears above it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    class Shown:
        def __init__(self) -> None:
            self.done = start
            self.fields: dict[str, float | str] = {}
            self.began = time.monotonic()

        def advance(self, n: int = 1, **fields: float | str) -> None:
            self.done += n
            self.fields.update(fields)
            live.update(task, advance=n, line=self.line())

        def line(self) -> str:
            return describe("", self.done, total, unit, start, time.monotonic() - self.began, self.fields)[2:]

    shown = Shown()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[line]}"),
    )
    live = RichProgress(*columns, console=Console(stderr=True), redirect_stdout=False)
    task = live.add_task(description, total=total, completed=start, line=shown.line())
    with live:
        yield shown
