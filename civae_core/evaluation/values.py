"""Numbers of an evaluation as they are shown, with an interval, a spread over runs or a name, where known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from civae_core.reading import finite_number

ABSENT = "–"


@dataclass(frozen=True)
class Value:
    """A number with its interval over images, its spread over runs and what it belongs to, as far as known."""

    mean: float
    lo: float | None = None
    hi: float | None = None
    sd: float | None = None
    """Standard deviation over runs that differ only in their seed."""
    runs: int = 1
    note: str = ""
    """The attribute or group to which the number belongs, where a measure names the worst one."""

    def text(self, decimals: int) -> str:
        """`0.21` or, over runs, `0.21 ± 0.01`."""
        spread = "" if self.sd is None else f" ± {_rounded(self.sd, decimals)}"
        return _rounded(self.mean, decimals) + spread

    def interval_text(self, decimals: int, between: str = " – ") -> str:
        """`0.18 – 0.24`, or an empty string."""
        if self.lo is None or self.hi is None:
            return ""
        return f"{_rounded(self.lo, decimals)}{between}{_rounded(self.hi, decimals)}"


def as_value(entry: object) -> Value | None:
    """A number or a {"mean", "lo", "hi", …} as a Value; None for anything else and for what is not finite."""
    if isinstance(entry, Mapping):
        mean = finite_number(entry.get("mean"))
        if mean is None:
            return None
        runs = entry.get("runs")
        # In older files this is KID's spread over subsets; a spread over runs comes with the runs' numbers.
        over_subsets = entry.keys() == {"mean", "sd"}
        return Value(
            mean,
            finite_number(entry.get("lo")),
            finite_number(entry.get("hi")),
            None if over_subsets else finite_number(entry.get("sd")),
            len(runs) if isinstance(runs, list) else 1,
            str(entry.get("attribute") or entry.get("group") or ""),
        )
    number = finite_number(entry)
    return None if number is None else Value(number)


def at_path(entry: object, path: Sequence[str]) -> object:
    """The value at a path of keys in nested mappings, or None."""
    for key in path:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def _rounded(number: float, decimals: int) -> str:
    """The number with fixed decimals, and without a minus sign if it rounds to zero."""
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text
