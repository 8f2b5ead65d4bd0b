"""Times several ways of doing the same thing in turn, and makes rows of the results.

A single time depends on what else the machine does in that minute. So ways are timed in turn, in an order that moves
on with every round, and the reported figure is the ratio of times of the same round: its median, lowest and highest.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Call = Callable[[], object]
LEAST_SECONDS = 0.05
"""Faster calls are repeated until they take this long, so that the clock's resolution does not matter."""
MOST_REPEATS = 2_000
LONG = 1.0
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 7
    seconds: float = 40.0
    """No further round begins after this time, once there are `FEWEST_ROUNDS`."""
    least_seconds: float = LEAST_SECONDS


def interleaved(
    ways: Mapping[str, Call],
    plan: Plan,
    finish: Call = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds that one call of each way took, in every round.

    Each way is first called once or twice without being counted.

    Args:
        ways: what is timed, by name.
        plan: how often.
        finish: waits until all submitted work is done, for devices that compute asynchronously.
        clock: returns seconds.
    """
    repeats = {}
    for name, call in ways.items():
        once = _seconds(call, 1, finish, clock)
        if once < LONG and plan.least_seconds:  # the first call may have done more than later ones do
            once = _seconds(call, 1, finish, clock)
        repeats[name] = min(max(math.ceil(plan.least_seconds / max(once, 1e-9)), 1), MOST_REPEATS)
    found: dict[str, list[float]] = {name: [] for name in ways}
    names, begun = list(ways), clock()
    for number in range(plan.rounds):
        if number >= FEWEST_ROUNDS and clock() - begun > plan.seconds:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(_seconds(ways[name], repeats[name], finish, clock) / repeats[name])
    return found


def _seconds(call: Call, repeats: int, finish: Call, clock: Callable[[], float]) -> float:
    finish()
    start = clock()
    for _ in range(repeats):
        call()
    finish()
    return clock() - start


@dataclass(frozen=True)
class Goal:
    """What a row should reach: at least `ratio` times the speed of its baseline, or at most `seconds` per call."""

    ratio: float | None = None
    seconds: float | None = None

    def reached(self, row: "Row") -> bool:
        """Whether the medians reach the goal."""
        if self.ratio is not None and statistics.median(row.ratios) < self.ratio:
            return False
        return self.seconds is None or statistics.median(row.seconds) <= self.seconds


@dataclass(frozen=True)
class Row:
    """A measurement beside that of a baseline, or why there is none."""

    section: str
    name: str
    baseline: str
    seconds: Sequence[float] = ()
    """Seconds of one call, in every round."""
    baseline_seconds: Sequence[float] = ()
    items: int = 1
    """Number of images, or of what `unit` says, that one call processes."""
    baseline_items: int | None = None
    """The same for the baseline's call; `items` if left out."""
    unit: str = "images"
    goal: Goal | None = None
    skipped: str | None = None
    notes: Sequence[str] = field(default=())

    @property
    def key(self) -> str:
        """What identifies the row from one measurement to the next."""
        return f"{self.section}: {self.name} / {self.baseline}"

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as the baseline, item by item, in every round."""
        scale = self.items / (self.baseline_items or self.items)
        return [scale * b / s for b, s in zip(self.baseline_seconds, self.seconds, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The row with the figures that follow from it, as docs/performance.json holds it."""
        said: dict[str, Any] = {"section": self.section, "name": self.name, "baseline": self.baseline}
        if self.skipped is not None:
            return said | {"skipped": self.skipped}
        said |= {"unit": self.unit, "items": self.items, "baseline_items": self.baseline_items or self.items}
        said |= {"seconds": list(self.seconds), "baseline_seconds": list(self.baseline_seconds)}
        said |= {"ratio": spread(self.ratios)}
        if self.goal is not None:
            limits = {"ratio": self.goal.ratio, "seconds": self.goal.seconds}
            said["goal"] = {name: limit for name, limit in limits.items() if limit is not None}
            said["reached"] = self.goal.reached(self)
        return said | ({"notes": list(self.notes)} if self.notes else {})


def compared(section: str, times: Mapping[str, Sequence[float]], baseline: str, **row: Any) -> list[Row]:
    """A row for each way but the baseline."""
    return [
        Row(section, name, baseline, seconds, times[baseline], **row)
        for name, seconds in times.items()
        if name != baseline
    ]


def not_measured(section: str, names: Sequence[str], baseline: str, why: str) -> list[Row]:
    """Rows that say why there is no figure."""
    return [Row(section, name, baseline, skipped=why) for name in names]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
