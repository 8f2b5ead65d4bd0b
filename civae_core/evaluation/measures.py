"""Titles of an evaluation's numbers, the better direction of each, and its meaning in plain words (METHOD 6).

The texts are in measures.yml, which both the terminal's table and the report use, so that they cannot disagree.
A `*` in a path stands for every attribute or treatment for which some method has a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

import yaml

from civae_core.evaluation.values import Value, as_value, at_path

Better = Literal["lower", "higher", "nearer 0", "nearer the truth"]
ARROWS: dict[Better, str] = {
    "lower": "↓",
    "higher": "↑",
    "nearer 0": "→0",
    "nearer the truth": "→truth",
}

NOT_COMPETING = ("copy", "truth")
"""Methods that are never marked as best: trivially perfect at what they do not attempt, or given the answer."""


@dataclass(frozen=True)
class Measure:
    """One number of a method's entry in the evaluation."""

    path: tuple[str, ...]
    """Keys of the entry, outermost first."""
    title: str
    """`{}` is replaced by the name that `*` stands for."""
    better: Better
    decimals: int
    meaning: str
    headline: bool = False
    """Whether the terminal's table shows it."""
    interval: bool = False
    """Whether the terminal's table shows its interval, too."""

    def value(self, entry: Mapping[str, Any]) -> Value | None:
        return as_value(at_path(entry, self.path))


@dataclass(frozen=True)
class Section:
    """Measures that answer one of the reader's questions."""

    title: str
    intro: str
    measures: tuple[Measure, ...]


def _read_sections() -> tuple[Section, ...]:
    text = resources.files(__package__).joinpath("measures.yml").read_text(encoding="utf-8")
    return tuple(
        Section(
            section["title"],
            section["intro"],
            tuple(Measure(**{**entry, "path": tuple(entry["path"])}) for entry in section["measures"]),
        )
        for section in yaml.safe_load(text)
    )


SECTIONS = _read_sections()
"""In the order of the report."""


def sections_present(methods: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    """The sections with the measures for which at least one method has a number, each `*` expanded."""
    filled = (
        replace(
            section, measures=tuple(m for pattern in section.measures for m in _expanded(pattern, methods))
        )
        for section in SECTIONS
    )
    return [section for section in filled if section.measures]


def measures_present(methods: Mapping[str, Mapping[str, Any]]) -> list[Measure]:
    """The measures of all sections that are present, in order."""
    return [measure for section in sections_present(methods) for measure in section.measures]


def best_methods(methods: Mapping[str, Mapping[str, Any]], measure: Measure) -> set[str]:
    """The competing methods with the best mean; empty if fewer than two compete, or if the truth is not known."""
    values = {name: measure.value(entry) for name, entry in methods.items() if name not in NOT_COMPETING}
    means = {name: value.mean for name, value in values.items() if value is not None}
    if len(means) < 2:
        return set()
    if measure.better in ("nearer 0", "nearer the truth"):
        aim = Value(0.0) if measure.better == "nearer 0" else measure.value(methods.get("truth", {}))
        if aim is None:
            return set()
        means = {name: abs(mean - aim.mean) for name, mean in means.items()}
    best = max(means.values()) if measure.better == "higher" else min(means.values())
    return {name for name, mean in means.items() if mean == best}


def _expanded(pattern: Measure, methods: Mapping[str, Mapping[str, Any]]) -> list[Measure]:
    """The measures that a pattern stands for and some method has; for a final `*`, the largest numbers first."""
    if "*" not in pattern.path:
        return [pattern] if _largest(pattern, methods) is not None else []
    star = pattern.path.index("*")
    before, after = pattern.path[:star], pattern.path[star + 1 :]
    names: dict[str, None] = {}
    for entry in methods.values():
        group = at_path(entry, before)
        names |= dict.fromkeys(group if isinstance(group, Mapping) else ())
    named = [replace(pattern, path=(*before, n, *after), title=pattern.title.format(n)) for n in names]
    sizes = {measure.title: _largest(measure, methods) for measure in named}
    kept = [measure for measure in named if sizes[measure.title] is not None]
    return kept if after else sorted(kept, key=lambda measure: -(sizes[measure.title] or 0.0))


def _largest(measure: Measure, methods: Mapping[str, Mapping[str, Any]]) -> float | None:
    found = [value for entry in methods.values() if (value := measure.value(entry)) is not None]
    return max((abs(value.mean) for value in found), default=None)
