"""Summarise runs of one method that differ only in their seed as one entry: mean and spread over the runs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LABELS = ("attribute", "group")
"""Keys that name the attribute or group to which a number belongs, such as the worst one of each run."""


def summarise(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the entries of a method's runs into one; every measure becomes a {"mean", "sd", "runs", "lo", "hi"}.

    `mean` and `sd` (n − 1 in the denominator; absent with one run) are over the runs, whose own numbers are `runs`.
    `lo` and `hi`, where the runs have them, are the means of the runs' intervals over images: they say how much the
    choice of images moves the number, whereas `sd` says how much retraining does. Nested entries are summarised key
    by key, and groups by name. A number that some runs lack is summarised over those that have it. Counts, which are
    the whole numbers (a measure is a float, even at 1.0), and words are kept where all runs agree, and dropped where
    they do not.

    Where runs name different attributes as their worst, or the same one with opposite signs, magnitudes are averaged,
    because leaks of opposite signs must not cancel, and all the names are given. If all runs name the same attribute
    with the same sign, the sign is kept.

    Args:
        entries: the runs' entries in `evaluate --json`, in the order of the runs.
    """
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    found: dict[str, Any] = {}
    for key in keys:
        values = [entry[key] for entry in entries if entry.get(key) is not None]
        if values and (merged := _merged(values)) is not None:
            found[key] = merged
    return found


def _merged(values: list[Any]) -> Any:
    if all(isinstance(value, int) for value in values):
        return values[0] if len(set(values)) == 1 else None
    if all(_is_number(value) for value in values):
        return _spread(values)
    if all(isinstance(value, Mapping) for value in values):
        if all(_is_number(value.get("mean")) for value in values):
            return _measure(values)
        return summarise(values) or None
    if all(_is_list_of_groups(value) for value in values):
        return _groups(values)
    return values[0] if all(value == values[0] for value in values) else None


def _measure(values: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the runs' values of one number, with its interval, labels and counts."""
    names = {key: _distinct(values, key) for key in LABELS if any(key in value for value in values)}
    if any(len(distinct) > 1 for distinct in names.values()) or (
        "attribute" in names and _signs_differ(values)
    ):
        values = [_magnitude(value) for value in values]
    found = _spread([value["mean"] for value in values])
    if all(_is_number(value.get("lo")) and _is_number(value.get("hi")) for value in values):
        found["lo"] = statistics.fmean(value["lo"] for value in values)
        found["hi"] = statistics.fmean(value["hi"] for value in values)
    rest = [
        {k: v for k, v in value.items() if k not in ("mean", "lo", "hi", "sd", "runs", *LABELS)}
        for value in values
    ]
    return found | summarise(rest) | {key: " or ".join(distinct) for key, distinct in names.items()}


def _signs_differ(values: list[Mapping[str, Any]]) -> bool:
    return min(value["mean"] for value in values) < 0 < max(value["mean"] for value in values)


def _magnitude(value: Mapping[str, Any]) -> dict[str, Any]:
    """The number without its sign, and its interval mirrored if the number was negative."""
    if value["mean"] >= 0:
        return dict(value)
    mirrored = {"mean": -value["mean"]}
    if _is_number(value.get("lo")) and _is_number(value.get("hi")):
        mirrored |= {"lo": -value["hi"], "hi": -value["lo"]}
    return {**value, **mirrored}


def _groups(lists: list[list[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The groups that every run has, merged, in the order of the first run."""
    by_name = [{row["group"]: row for row in rows} for rows in lists]
    shared = [name for name in by_name[0] if all(name in rows for rows in by_name)]
    return [_merged([rows[name] for rows in by_name]) for name in shared]


def _spread(numbers: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": statistics.fmean(numbers), "runs": [float(n) for n in numbers]}
    if len(numbers) > 1:
        found["sd"] = statistics.stdev(numbers)
    return found


def _distinct(values: list[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(value[key]) for value in values if key in value))


def _is_list_of_groups(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, Mapping) and "group" in row for row in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
