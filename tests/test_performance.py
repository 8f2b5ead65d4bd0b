"""The runner of benchmarks/performance: what it writes has its structure, and its ratios are those of its times.

No time is judged here: on a machine that does other things too it would say nothing.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import run_script

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks.performance import compare, memory, page  # noqa: E402
from benchmarks.performance.images import NO_TORCHVISION  # noqa: E402
from benchmarks.performance.machine import NO_GPU  # noqa: E402
from benchmarks.performance.measure import Goal, Plan, Row, interleaved  # noqa: E402
from benchmarks.performance.memory import QUICK_SIZES, Growth, Held, MemoryRow, watched  # noqa: E402
from benchmarks.performance.steps import NO_BF16  # noqa: E402

SECTIONS = [
    "data preparation",
    "data loading",
    "training step",
    "training step, GPU",
    "several processes",
    "counterfactuals",
    "start-up",
]


class Clock:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def spend() -> None:
            self.now += seconds

        return spend


def numbers(*rows: Row, machine: str = "a") -> dict[str, Any]:
    described = {"processor": machine, "threads": 1, "gpu": NO_GPU, "packages": {}}
    return {"timing": {"machine": described, "rows": [row.to_json() for row in rows]}}


@pytest.fixture(scope="session")
def quick(made_once: Callable[..., Path]) -> Path:
    """What `timing --quick` wrote."""

    def make(out: Path) -> None:
        from benchmarks.performance.__main__ import main

        said = out.with_suffix(".txt")
        assert run_script(main, ["timing", "--quick", "--out", out], said) == 0
        assert said.read_text("utf-8").splitlines() == [str(out.with_suffix(".json"))]

    return made_once("performance", make)


def test_every_section_is_there_and_every_ratio_is_of_what_was_measured(quick: Path) -> None:
    timing = json.loads(quick.with_suffix(".json").read_text("utf-8"))["timing"]
    assert list(dict.fromkeys(row["section"] for row in timing["rows"])) == SECTIONS
    for row in timing["rows"]:
        if "skipped" in row:
            assert row["skipped"] in (NO_GPU, NO_BF16, NO_TORCHVISION, "not with --quick", "one core")
            continue
        scale = row["items"] / row["baseline_items"]
        pairs = zip(row["baseline_seconds"], row["seconds"], strict=True)
        ratios = [scale * baseline / seconds for baseline, seconds in pairs]
        assert row["ratio"]["median"] == pytest.approx(statistics.median(ratios)), row["name"]
        assert [row["ratio"]["low"], row["ratio"]["high"]] == pytest.approx([min(ratios), max(ratios)])
    measured = {row["section"] for row in timing["rows"] if "skipped" not in row}
    assert measured >= {*SECTIONS} - {"training step, GPU", "several processes"}


def test_the_profile_names_five_costs_and_a_share_of_the_peak(quick: Path) -> None:
    found = json.loads(quick.with_suffix(".json").read_text("utf-8"))["timing"]["profile"]
    shares = [cost["share"] for cost in found["largest"]]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    reached = [found["gflop"] / seconds / found["peak_gflops"] for seconds in found["seconds"]]
    assert found["share_of_peak"]["median"] == pytest.approx(statistics.median(reached))


def test_the_page_has_a_line_for_each_row_that_was_timed_and_says_that_it_is_a_trial(quick: Path) -> None:
    rows = json.loads(quick.with_suffix(".json").read_text("utf-8"))["timing"]["rows"]
    text = quick.with_suffix(".md").read_text("utf-8")
    timed = [row for row in rows if "skipped" not in row]
    assert all(f"| {row['name']} | {row['baseline']} | " in text for row in timed)
    assert not any(f" | {row['skipped']} |" in text for row in rows if "skipped" in row)
    assert "python -m benchmarks.performance timing" in text and "A trial" in text


def test_one_section_can_be_timed_anew_and_the_others_stay(quick: Path, tmp_path: Path) -> None:
    from benchmarks.performance.__main__ import main

    out, said = tmp_path / "performance", tmp_path / "said.txt"
    shutil.copy(quick.with_suffix(".json"), out.with_suffix(".json"))
    before = json.loads(out.with_suffix(".json").read_text("utf-8"))["timing"]
    assert run_script(main, ["--section", "data loading", "--quick", "--out", out], said) == 0
    after = json.loads(out.with_suffix(".json").read_text("utf-8"))["timing"]
    keys = [[(row["section"], row["name"]) for row in timing["rows"]] for timing in (before, after)]
    assert keys[0] == keys[1]
    for was, found in zip(before["rows"], after["rows"], strict=True):
        assert (was == found) == (was["section"] != "data loading" or "skipped" in was), was["name"]
    assert after["profile"] == before["profile"] and list(after["apart"]) == ["data loading"]
    assert "*data loading* anew: 20" in out.with_suffix(".md").read_text("utf-8")
    assert after["quick"] and "A trial" in out.with_suffix(".md").read_text("utf-8")
    assert run_script(main, ["--section", "one training step", "--quick", "--out", out], said) == 0
    last = json.loads(out.with_suffix(".json").read_text("utf-8"))["timing"]
    assert last["rows"] == after["rows"] and last["profile"]["seconds"] != after["profile"]["seconds"]
    assert list(last["apart"]) == ["data loading", "one training step"]
    assert run_script(main, ["--section", "start-up", "--quick", "--out", tmp_path / "none"], said) == 2
    assert run_script(main, ["memory", "--section", "start-up", "--quick", "--out", out], said) == 2


def test_ways_are_timed_in_turn_and_short_ones_repeated() -> None:
    clock, order = Clock(), []

    def way(name: str, seconds: float) -> Callable[[], None]:
        spend = clock.work(seconds)
        return lambda: (order.append(name), spend())[1]

    plan = Plan(rounds=4, seconds=1e9, least_seconds=1.0)
    times = interleaved({"slow": way("slow", 2.0), "fast": way("fast", 0.25)}, plan, clock=clock)
    assert times == {"slow": [2.0] * 4, "fast": [0.25] * 4}
    four = ["fast"] * 4
    assert order == ["slow", "fast", "fast", "slow", *four, *four, "slow", "slow", *four, *four, "slow"]


def test_no_round_begins_after_the_time_is_up_but_three_are_made() -> None:
    clock = Clock()
    times = interleaved({"a": clock.work(5.0)}, Plan(rounds=9, seconds=12.0), clock=clock)
    assert len(times["a"]) == 3
    assert len(interleaved({"a": clock.work(5.0)}, Plan(rounds=9, seconds=18.0), clock=clock)["a"]) == 4


def test_a_ratio_counts_what_either_dealt_with() -> None:
    row = Row(
        "s", "n", "b", [1.0, 2.0, 4.0], [1.0, 1.0, 1.0], items=8, baseline_items=2, goal=Goal(ratio=2.0)
    )
    assert row.ratios == [4.0, 2.0, 1.0]
    assert row.to_json()["ratio"] == {"median": 2.0, "low": 1.0, "high": 4.0}
    assert row.to_json()["reached"] and not Goal(ratio=2.1).reached(row)
    assert Goal(seconds=2.0).reached(row) and not Goal(seconds=1.9).reached(row)


def test_what_moved_is_told_and_what_only_varies_is_not() -> None:
    def at(name: str, *seconds: float) -> Row:
        return Row("s", name, "b", seconds, [1.0] * len(seconds))

    before = numbers(at("slower", 1, 1.1), at("faster", 1, 1.1), at("same", 1, 2), at("left", 1))
    after = numbers(at("slower", 2, 2.1), at("faster", 0.5, 0.6), at("same", 1.5, 2.5), at("come", 1))
    lines = compare.moved(before, after)
    assert [line.split()[0] for line in lines] == ["gone", "worse", "better", "new"]
    assert lines[1] == "worse   s: slower / b: 0.955 → 0.488"
    assert compare.moved(before, before) == []
    assert "other processor" in compare.moved(before, numbers(at("same", 1), machine="b"))[0]
    lacking = numbers(Row("s", "same", "b", skipped=NO_GPU))
    assert f"gone    s: same / b: {NO_GPU}" in compare.moved(before, lacking)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_last_committed_figures_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(compare, "ROOT", tmp_path)
    assert compare.committed() is None
    git("init")
    assert compare.committed() is None
    (tmp_path / "docs").mkdir()
    (tmp_path / compare.COMMITTED).write_text('{"schema": 1}', encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "figures")
    (tmp_path / compare.COMMITTED).write_text('{"schema": 2}', encoding="utf-8")
    assert compare.committed() == {"schema": 1}


def test_more_memory_is_worse() -> None:
    def of(mib: float) -> dict[str, Any]:
        row = MemoryRow("s", "n", "b", mib, 100.0, most=1.1)
        return {"memory": {"machine": {}, "rows": [row.to_json()]}}

    assert of(109.0)["memory"]["rows"][0]["reached"] and not of(111.0)["memory"]["rows"][0]["reached"]
    assert compare.moved(of(100.0), of(120.0)) == ["worse   s: n / b: 1 → 1.2"]
    assert compare.moved(of(120.0), of(100.0)) == ["better  s: n / b: 1.2 → 1"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no process's memory")
def test_what_a_process_allocates_is_seen_and_a_mapped_file_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process announces when it holds its memory, and waits until that memory has been read."""
    (tmp_path / "file").write_bytes(os.urandom(2**20) * 64)
    holds, seen = tmp_path / "holds", tmp_path / "seen"
    real = memory.status_of

    def status_of(pid: int) -> dict[str, float]:
        was_there = holds.exists()
        found = real(pid)
        if was_there:
            seen.touch()
        return found

    def watched_to_the_end(doing: str) -> Held:
        wait = "import pathlib, time; pathlib.Path(sys.argv[1]).touch()\n"
        wait += "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(.002)"
        found = watched([sys.executable, "-c", f"import sys; {doing}; {wait}", str(holds), str(seen)])
        holds.unlink()
        seen.unlink()
        return found

    monkeypatch.setattr(memory, "status_of", status_of)
    nothing = watched_to_the_end("pass")
    allocating = watched_to_the_end("a = b'1' * (64 * 2**20)")
    opening = (
        f"import mmap; f = open({str(tmp_path / 'file')!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, access=1)"
    )
    mapped = watched_to_the_end(f"{opening}; sum(m[::4096])")
    assert 60 < allocating.allocated - nothing.allocated < 70
    assert mapped.allocated - nothing.allocated < 8 and mapped.resident - nothing.resident > 60


def test_a_command_that_fails_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        watched([sys.executable, "-c", "raise SystemExit('out of luck')"])
    assert "out of luck" in capfd.readouterr().err


def test_what_was_watched_is_not_watched_again(tmp_path: Path) -> None:
    growth, few, many = Growth(tmp_path, QUICK_SIZES), Held(10.0, 100.0), Held(12.0, 110.0)
    first = growth._row("train", "images", (1, 10), lambda: [few, many])
    assert first == growth._row("train", "images", (1, 10), lambda: pytest.fail("watched again"))
    assert (first.name, first.baseline) == ("train: 10 images", "1")
    assert (first.allocated, first.baseline_allocated) == (12.0, 10.0) and first.to_json()["ratio"] == 1.2
    assert not first.to_json()["reached"]
    assert growth._row("train", "images", (1, 20), lambda: [few, few]).to_json()["reached"]


def test_what_was_not_timed_is_told_in_one_line_for_each_reason(quick: Path) -> None:
    timing = json.loads(quick.with_suffix(".json").read_text("utf-8"))["timing"]
    timing["rows"] = [
        Row("steps", "fast", "slow", [1.0], [2.0]).to_json(),
        Row("steps", "odd", "slow", skipped=NO_BF16).to_json(),
        Row("steps", "far", "slow", skipped=NO_GPU).to_json(),
        *(Row("steps, GPU", name, "slow", skipped=NO_GPU).to_json() for name in ("fast", "odd")),
    ]
    text = page.as_page({"timing": timing})
    assert f"- *odd*: {NO_BF16}\n- *far*; all of **steps, GPU**: {NO_GPU}\n" in text
    assert "| fast | slow | 2 (2–2) |" in text and "| odd |" not in text
    timing["rows"] = timing["rows"][:1]
    assert "Not timed" not in page.as_page({"timing": timing})


def test_the_committed_page_is_that_of_the_committed_figures() -> None:
    numbers = json.loads((ROOT / "docs" / "performance.json").read_text("utf-8"))
    assert (ROOT / "docs" / "performance.md").read_text("utf-8") == page.as_page(numbers)


def test_parts_are_shown_alone() -> None:
    row = MemoryRow("ten times the data", "train", "20", 3.0, 2.0, 9.0, 8.0, most=1.1).to_json()
    machine = {"processor": "p", "cores": 1, "threads": 1, "memory_gib": 1, "gpu": NO_GPU, "system": "s"}
    machine |= {"instructions": "i", "python": "3", "packages": {}, "load_before": [0.0]}
    text = page.as_page({"memory": {"date": "2026-01-01", "quick": False, "machine": machine, "rows": [row]}})
    assert (
        "| 1.50 | 3 | 2 | 9 | 8 | ≤ 1.1: **missed** |" in text
        and "## Time" not in text
        and "trial" not in text
    )
