"""Generates docs/performance.md from docs/performance.json."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND = "python -m benchmarks.performance"
HEAD = """\
# What it costs

The commands below generate this page from [performance.json](performance.json). Nothing on it is typed by hand.
"""
READING = """\
A ratio compares a row with its baseline, image by image: it says how many times as fast the row is, so above 1 is
faster. Both were timed in turn in one process (commands in processes of their own), in an order that moves on with
every round. The table gives the median of the rounds' ratios and, in brackets, the lowest and the highest. The images
are drawn faces, as JPEGs of CelebA's size. In a training step, *ours* is the network of
[celeba-64-young.yml](../configs/celeba-64-young.yml), and *the original's preset* that of
[original-64.yml](../configs/original-64.yml).
"""


def as_page(numbers: Mapping[str, Any]) -> str:
    """The whole page, for the parts that were measured."""
    parts = [HEAD]
    if any(numbers[part]["quick"] for part in numbers if part in ("timing", "memory")):
        parts.append("**A trial with next to nothing (`--quick`): its figures say nothing.**\n")
    if "timing" in numbers:
        parts += _timing(numbers["timing"])
    if "memory" in numbers:
        parts += _memory(numbers["memory"])
    return "\n".join(parts)


def _timing(timing: Mapping[str, Any]) -> list[str]:
    head = ("what", "baseline", "ratio", "images/s", "baseline's", "goal")
    table: list[Sequence[str]] = []
    section = ""
    for row in (row for row in timing["rows"] if "skipped" not in row):
        if row["section"] != section:
            section = row["section"]
            table.append((f"**{section}**", *[""] * (len(head) - 1)))
        table.append(_timed(row))
    return [
        "## Time\n",
        f"```bash\n{COMMAND} timing\n```\n",
        READING,
        _machine(timing),
        *(f"*{name}* anew: {_machine(apart)}" for name, apart in timing.get("apart", {}).items()),
        _table(head, table),
        *_not_timed(timing["rows"]),
        *_profile(timing["profile"]),
    ]


def _not_timed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each reason, with the rows that were not timed for it; a section without figures by its name."""
    timed = {row["section"] for row in rows if "skipped" not in row}
    named: dict[str, dict[str, None]] = {}
    for row in (row for row in rows if "skipped" in row):
        section = row["section"]
        name = f"*{row['name']}*" if section in timed else f"all of **{section}**"
        named.setdefault(row["skipped"], {})[name] = None
    lines = [f"- {'; '.join(names)}: {why}\n" for why, names in named.items()]
    return ["Not timed:\n", "".join(lines)] if lines else []


def _timed(row: Mapping[str, Any]) -> Sequence[str]:
    ratio = row["ratio"]
    unit = "" if row["unit"] == "images" else f" {row['unit']}"
    return (
        row["name"],
        row["baseline"],
        f"{_number(ratio['median'])} ({_number(ratio['low'])}–{_number(ratio['high'])})",
        _rate(row["items"], row["seconds"], unit),
        _rate(row["baseline_items"], row["baseline_seconds"], unit),
        _goal(row),
    )


def _rate(items: int, seconds: Sequence[float], unit: str) -> str:
    """Images per second; of other units, which take long enough to wait for, the seconds of each."""
    median = statistics.median(seconds)
    return f"{median:.3f} s each" if unit else f"{_number(items / median)}"


def _goal(row: Mapping[str, Any]) -> str:
    if "goal" not in row:
        return ""
    goal = row["goal"]
    limits = [f"≥ {goal['ratio']:g}"] if "ratio" in goal else []
    limits += [f"≤ {goal['seconds']:g} s"] if "seconds" in goal else []
    limits += [f"≤ {goal['ratio_at_most']:g}"] if "ratio_at_most" in goal else []
    return f"{', '.join(limits)}: {'reached' if row['reached'] else '**missed**'}"


def _profile(found: Mapping[str, Any]) -> list[str]:
    share, speed = found["share_of_peak"], found["gflops"]
    text = (
        f"One step of {found['network']} with {found['images']} images ({found['computed']}) computes "
        f"{found['gflop']:.1f} GFLOP in {1e3 * statistics.median(found['seconds']):.0f} ms, which is "
        f"{_number(speed['median'])} GFLOP/s. That is {share['median']:.0%} ({share['low']:.0%} to "
        f"{share['high']:.0%}) of the {_number(found['peak_gflops'])} GFLOP/s that the {found['peak_from']} reaches "
        "here. These are the five most expensive operators, by their own time:\n"
    )
    rows = [
        (f"`{cost['operator']}`", f"{cost['share']:.0%}", f"{cost['milliseconds']:.1f}", f"{cost['calls']:,}")
        for cost in found["largest"]
    ]
    return [
        "## One training step\n",
        text,
        _table(("operator", "share of the operators' time", "ms", "calls"), rows),
    ]


def _memory(memory: Mapping[str, Any]) -> list[str]:
    head = ("what", "baseline", "ratio", "MiB", "baseline's", "with pages of files", "baseline's", "goal")
    text = (
        "Each command runs in a process of its own, whose memory is read every 5 ms. *MiB* is the most that the "
        "process had allocated. *With pages of files* is the most that was resident, including pages of mapped "
        "files, which the system takes back when it needs them. For one training step, *MiB* is the peak size of "
        "the tensors made in it, without what operators use internally. The ratio is of *MiB*: below 1 is less "
        "memory.\n"
    )
    rows = []
    for row in memory["rows"]:
        name, against = f"{row['section']}: {row['name']}", row["baseline"]
        if "skipped" in row:
            rows.append((name, against, row["skipped"], *[""] * 5))
            continue
        sizes = [row["allocated_mib"], row["baseline_allocated_mib"]]
        files = [f"{row[k]:,.0f}" if k in row else "" for k in ("resident_mib", "baseline_resident_mib")]
        rows.append(
            (name, against, f"{row['ratio']:.2f}", *(f"{mib:,.0f}" for mib in sizes), *files, _goal(row))
        )
    return ["## Memory\n", f"```bash\n{COMMAND} memory\n```\n", text, _machine(memory), _table(head, rows)]


def _machine(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{part['date']}, {machine['processor']} ({machine['instructions']}), {machine['cores']} cores, "
        f"{machine['threads']} threads, {machine['memory_gib']} GiB, {machine['gpu']}, {machine['system']}, "
        f"Python {machine['python']}, {packages}; load before {machine['load_before'][0]}.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _number(value: float) -> str:
    """The value with three significant digits, and all its digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
