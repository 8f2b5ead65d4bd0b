"""Run the tests repeatedly, each time in another order and with other generated inputs, to find flaky tests.

    python benchmarks/repeat_tests.py [--times 20] [--out repeats.jsonl] [--processes 2] [-- WHAT PYTEST IS GIVEN]

The number of a repeat is its seed: for the order of files and of the tests in each file, for hypothesis, and thereby
for which process gets which test. Otherwise the tests run as in `./check`. After each repeat a line of JSON is
appended to `--out`: how many tests passed, failed and were skipped, the time in seconds, the load of the machine, and
the names of the failed tests. What pytest said of a failed repeat N is kept as OUT.N.txt. The script can be stopped
at any time; the same command continues with the next repeat. At the end it prints a summary. Exit code 1 if anything
failed.

To reproduce a failure: `CIVAE_TEST_SEED=N python -m pytest --hypothesis-seed N`, with the same number of processes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def tree() -> str:
    """The commit under test, with `+changes` if tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+changes" if changed else "") or "unknown"


def repeats_in(file: Path) -> list[dict[str, Any]]:
    """The lines that earlier calls wrote; one that was cut off is dropped."""
    if not file.exists():
        return []
    whole = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
    return [json.loads(line) for line in whole]


def run_once(number: int, processes: int, given: Sequence[str], out: Path) -> dict[str, Any]:
    """Run the tests once; return their counts, failures and seconds.

    If any failed, what pytest said is kept as `out`.<number>.txt.
    """
    with tempfile.TemporaryDirectory(prefix="civae-repeat-") as folder:
        report, said = Path(folder, "report.xml"), Path(folder, "said.txt")
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", f"--hypothesis-seed={number}"]
        if processes > 1:
            command += ["--numprocesses", str(processes), "--dist", "worksteal"]
        # Byte code is kept, as in ./check, because many processes start.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began, load = time.monotonic(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        with said.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                [*command, *given],
                cwd=ROOT,
                env=environment | {"CIVAE_TEST_SEED": str(number)},
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        seconds = round(time.monotonic() - began, 1)
        found = (
            counted(report) if report.exists() else {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
        )
        if code not in (0, 1) or (code == 1 and not found["failures"]):
            last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            found["failures"].append(f"pytest ended with {code}: {''.join(last)[:300]}")
            found["failed"] += 1
        if found["failures"]:
            shutil.copy(said, out.with_name(f"{out.name}.{number}.txt"))
    return {"repeat": number, "tree": tree(), "load": load, "exit": code, **found, "seconds": seconds}


def counted(report: Path) -> dict[str, Any]:
    """Counts and names from pytest's report; an error in a test's set-up or tear-down counts as its failure."""
    became: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        tags = {child.tag for child in case}
        state = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        became[name] = "failed" if "failed" in (state, became.get(name)) else state
    numbers = Counter(became.values())
    failures = sorted(name for name, state in became.items() if state == "failed")
    return {state: numbers[state] for state in ("passed", "failed", "skipped")} | {"failures": failures}


def summed(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summary of all repeats."""
    seconds = [line["seconds"] for line in repeats]
    failures = Counter(name for line in repeats for name in line["failures"])
    return {
        "repeats": len(repeats),
        "tests": max(line["passed"] + line["failed"] for line in repeats),
        "repeats_with_failures": sum(bool(line["failures"]) for line in repeats),
        "failures": dict(failures.most_common()),
        "seconds": {"least": min(seconds), "median": statistics.median(seconds), "most": max(seconds)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("repeats.jsonl"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("given", nargs="*", metavar="WHAT PYTEST IS GIVEN")
    options = parser.parse_args()
    if options.times < 1:
        parser.error(f"--times {options.times}: must be at least 1")
    repeats = repeats_in(options.out)
    if others := {line["tree"] for line in repeats} - {tree()}:
        parser.error(f"{options.out} belongs to another tree ({min(others)[:12]}); name another file")
    options.out.write_text("".join(json.dumps(line) + "\n" for line in repeats), encoding="utf-8")
    for number in range(len(repeats) + 1, options.times + 1):
        repeats.append(run_once(number, options.processes, options.given, options.out))
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(repeats[-1]) + "\n")
        line = repeats[-1]
        said = f"{number}/{options.times}: {line['passed']} passed, {line['failed']} failed in {line['seconds']} s"
        print(": ".join([said, ", ".join(line["failures"])]) if line["failures"] else said, file=sys.stderr)
    found = summed(repeats)
    print(json.dumps(found, indent=2))
    raise SystemExit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
