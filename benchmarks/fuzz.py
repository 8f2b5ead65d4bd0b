"""Run the suite's tests of hostile input with many more inputs and fresh seeds, until the time is up.

    python benchmarks/fuzz.py --minutes 60 [--examples 500] [--only tables] [--memory 8]

Each round runs tests/hostile/test_fuzz_*.py and tests/properties in a separate process, with a new seed and a memory
limit. A failure is printed with its smallest input, and the script exits with code 1. The last line gives the number
of hostile inputs tried, by target; inputs of tests/properties are not counted.
"""

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANG_SECONDS = 3_600
"""Limit for one round; each input has a limit of its own, in tests/hostile/survival.py."""


def one_round(
    seed: int, examples: int, only: str, memory: int, tally: Path
) -> subprocess.CompletedProcess[str]:
    """Run the tests once; they write the number of inputs tried to the file `tally`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory * 2**30, memory * 2**30))

    tests = sorted(str(path) for path in (ROOT / "tests" / "hostile").glob("test_fuzz_*.py"))
    command = [sys.executable, "-m", "pytest", "-x", "--tb=short", "-p", "no:cacheprovider"]
    chosen = ["-k", only] if only else []
    environment = {
        **os.environ,
        "CIVAE_FUZZ_EXAMPLES": str(examples),
        "CIVAE_FUZZ_TALLY": str(tally),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [*command, f"--hypothesis-seed={seed}", *chosen, *tests, str(ROOT / "tests" / "properties")],
        cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=HANG_SECONDS, preexec_fn=limit, check=False,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True, help="no new round is begun after them")
    parser.add_argument("--examples", type=int, default=500, help="inputs of each test in a round")
    parser.add_argument("--only", default="", help="as pytest's -k")
    parser.add_argument("--memory", type=int, default=8, help="GiB of address space that a round may take")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    total: Counter[str] = Counter()
    rounds = 0
    while time.monotonic() < end:
        seed = secrets.randbelow(2**32)
        with tempfile.TemporaryDirectory() as folder:
            tally = Path(folder) / "tally.json"
            tried = one_round(seed, args.examples, args.only, args.memory, tally)
            if tally.exists():
                total += Counter(json.loads(tally.read_text(encoding="utf-8")))
        rounds += 1
        if tried.returncode:
            print(tried.stdout, tried.stderr, f"seed {seed} failed in round {rounds}", sep="\n")
            return 1
        print(f"round {rounds}, seed {seed}: {total.total():,} inputs, failures 0", file=sys.stderr)
    by_target = ", ".join(f"{name} {count:,}" for name, count in sorted(total.items()))
    print(f"{rounds} rounds, {total.total():,} inputs, failures 0: {by_target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
