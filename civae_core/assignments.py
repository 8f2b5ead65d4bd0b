"""Attribute assignments as typed on a command line: `Young=0`, `Young=-1:3:7`, `Male=flip`.

This module imports no torch.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from civae_core.attributes import Attribute, nearest, require_name
from civae_core.errors import UsageError

MOST_INTERVENTIONS = 1000
LARGEST_VALUE = (2 - 2**-23) * 2.0**127
"""Largest finite 32-bit float."""

Value = float | Literal["flip"]
Intervention = dict[str, Value]
"""Values set at once: attribute name to a raw value, or to `flip` for the other value of a binary attribute."""


@dataclass(frozen=True)
class Assignment:
    """One `NAME=…` and the values that it stands for: a single one, or those of a sweep."""

    name: str
    values: tuple[Value, ...]


def do_text(do: Mapping[str, Any], between: str = ", ", digits: int = 6) -> str:
    """Format an intervention, or values of attributes, as in `Young=flip, Age=70`.

    Args:
        between: separator between attributes.
        digits: significant digits of numbers.
    """
    return between.join(
        f"{name}={value if isinstance(value, str) else f'{value:.{digits}g}'}" for name, value in do.items()
    )


def parse_assignment(text: str, flag: str = "--treat", known: Iterable[str] | None = None) -> Assignment:
    """Parse `NAME=VALUE`, `NAME=LOW:HIGH:COUNT` (both ends included, evenly spaced) or `NAME=flip`.

    Args:
        text: the text as typed.
        flag: the flag before it, for messages.
        known: the known attribute names; None accepts any name.

    Raises:
        UsageError: an unknown name, a value that is not a finite number or is too large, or a malformed sweep.
    """
    where = f"{flag} {text}"
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise UsageError(f"{where}: needs the form NAME=VALUE", hint="for example Young=0, or Young=-1:3:7")
    if known is not None:
        require_name(name, known, where)
    if value == "flip":
        return Assignment(name, ("flip",))
    if ":" in value:
        return Assignment(name, _sweep(value, where))
    return Assignment(name, (_number(value, where),))


def parse_values(texts: Sequence[str], known: Iterable[str], flag: str = "--attr") -> dict[str, float]:
    """Parse assignments of a single number to each of several attributes, as in `--attr Smiling=1`.

    Raises:
        UsageError: as in `parse_assignment`; also for a sweep, `flip`, or an attribute given twice.
    """
    names = list(known)
    values: dict[str, float] = {}
    for text in texts:
        assignment = parse_assignment(text, flag, names)
        first = assignment.values[0]
        if first == "flip" or len(assignment.values) > 1 or ":" in text.partition("=")[2]:
            raise UsageError(f"{flag} {text}: needs a single number", hint=f"for example {assignment.name}=1")
        if assignment.name in values:
            raise UsageError(
                f"{flag} {text}: {assignment.name} is already given", hint="give each attribute once"
            )
        values[assignment.name] = first
    return values


def parse_treatments(
    texts: Sequence[str], known: Iterable[str], continuous: Iterable[str] = (), flag: str = "--treat"
) -> list[Intervention]:
    """Expand several `--treat` values into the interventions that they stand for.

    Several values of one attribute, repeated or from a sweep, are alternatives; different attributes are set
    together. So `Young=0 Young=1 Male=flip` stands for two interventions, (Young=0, Male=flip) and
    (Young=1, Male=flip), and two sweeps stand for their grid, with the first attribute varying slowest. A value
    given twice counts once.

    Args:
        texts: the values as typed, in order.
        known: names of the attributes that can be intervened on.
        continuous: names of the continuous ones, which cannot be flipped.
        flag: the flag, for messages.

    Raises:
        UsageError: as in `parse_assignment`; also `flip` of a continuous attribute, or more than 1000 interventions.
    """
    names, unflippable = list(known), set(continuous)
    alternatives: dict[str, dict[Value, None]] = {}
    for text in texts:
        assignment = parse_assignment(text, flag, names)
        if "flip" in assignment.values and assignment.name in unflippable:
            raise UsageError(
                f"{flag} {text}: {assignment.name} is continuous, so it has no other value to flip to",
                hint=f"give a number, as in {assignment.name}=1.5",
            )
        alternatives.setdefault(assignment.name, {}).update(dict.fromkeys(assignment.values))
    count = math.prod(len(values) for values in alternatives.values())
    if count > MOST_INTERVENTIONS:
        shown = " ".join(f"{flag} {text}" for text in texts)
        raise UsageError(
            f"{shown}: stands for {count:,} interventions, at most {MOST_INTERVENTIONS:,} are allowed",
            hint="take fewer steps in the sweeps",
        )
    if not alternatives:
        return []
    return [
        dict(zip(alternatives, values, strict=True)) for values in itertools.product(*alternatives.values())
    ]


def interventions_on(texts: Sequence[str] | None, treatments: Sequence[Attribute]) -> list[Intervention]:
    """The interventions on a model's treatments that the user requests with `--treat`.

    Raises:
        UsageError: none is requested; also as in `parse_treatments`.
    """
    if not texts:
        raise UsageError(
            "--treat is missing: say what to change", hint=f"for example --treat {treatments[0].name}=flip"
        )
    continuous = [a.name for a in treatments if a.kind == "continuous"]
    return parse_treatments(texts, [a.name for a in treatments], continuous)


def _sweep(text: str, where: str) -> tuple[float, ...]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"{where}: a sweep needs the form LOW:HIGH:COUNT", hint="for example Young=-1:3:7")
    low, high = _number(parts[0], where), _number(parts[1], where)
    try:
        count = int(parts[2])
    except ValueError as error:
        raise UsageError(
            f"{where}: the count {parts[2]!r} of the sweep is not a whole number",
            hint="for example Young=-1:3:7, seven values from -1 to 3",
        ) from error
    if not 2 <= count <= MOST_INTERVENTIONS:
        raise UsageError(
            f"{where}: a sweep takes 2 to {MOST_INTERVENTIONS} steps, not {count}",
            hint="both ends count as steps, as in Young=-1:3:7; a single value is Young=0",
        )
    return tuple(high if i == count - 1 else low + (high - low) * i / (count - 1) for i in range(count))


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        near = nearest(text, ["flip"])
        hint = (
            f"did you mean {near}?"
            if near
            else "give a number such as 0 or 1.5, in the attribute's own units"
        )
        raise UsageError(f"{where}: {text!r} is not a number", hint=hint) from error
    if not math.isfinite(value):
        raise UsageError(
            f"{where}: {text!r} is not a finite number",
            hint="give a number such as 0 or 1.5, in the attribute's own units",
        )
    if abs(value) > LARGEST_VALUE:
        raise UsageError(
            f"{where}: {text!r} is beyond {LARGEST_VALUE:.2g}, the largest number that a model takes",
            hint="`civae info RUN` shows the range of each attribute in training",
        )
    return value
