"""What moved since the last committed figures."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.performance.bench import ROOT

COMMITTED = "docs/performance.json"
NOTHING = f"nothing to compare with: {COMMITTED} is not committed"
LEAST_SHARE = 0.05
"""A smaller change of the median is not reported, even if the ranges do not overlap."""


def committed() -> dict[str, Any] | None:
    """The figures of the last commit, or None."""
    command = ["git", "show", f"HEAD:{COMMITTED}"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or the file is not committed yet
        return None
    numbers: dict[str, Any] = json.loads(found.stdout)
    return numbers


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each row that is new or gone or whose ratio moved, and for each part from another machine.

    A timed ratio moved if its range over the rounds does not overlap the earlier one and the medians differ by > 5 %.
    """
    lines = []
    for part in ("timing", "memory"):
        if part not in after or part not in before:
            continue
        if other := _other_machine(before[part], after[part]):
            lines.append(f"{part}: {other}")
        lines += _rows_moved(
            _by_key(before[part]), _by_key(after[part]), "less" if part == "timing" else "more"
        )
    return lines


def _rows_moved(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], worse: str
) -> Iterator[str]:
    for key in before.keys() - after.keys():
        yield f"gone    {key}"
    for key, row in after.items():
        if key not in before:
            yield f"new     {key}"
            continue
        was, is_ = _ratio(before[key]), _ratio(row)
        if was is None or is_ is None:
            if (was is None) != (is_ is None):
                lacking = row if is_ is None else before[key]
                yield f"{'new' if was is None else 'gone':<7} {key}: {lacking['skipped']}"
            continue
        apart = is_["low"] > was["high"] or is_["high"] < was["low"]
        if apart and abs(is_["median"] / was["median"] - 1) > LEAST_SHARE:
            grew = is_["median"] > was["median"]
            word = "worse" if grew == (worse == "more") else "better"
            yield f"{word:<7} {key}: {was['median']:.3g} → {is_['median']:.3g}"


def _ratio(row: Mapping[str, Any]) -> dict[str, float] | None:
    ratio = row.get("ratio")
    if ratio is None or isinstance(ratio, dict):
        return ratio
    return {"median": ratio, "low": ratio, "high": ratio}


def _by_key(part: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {f"{row['section']}: {row['name']} / {row['baseline']}": row for row in part["rows"]}


def _other_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    names = ("processor", "threads", "gpu", "packages")
    differ = [name for name in names if before["machine"].get(name) != after["machine"].get(name)]
    return f"other {', '.join(differ)} than before: ratios may differ for that" if differ else None
