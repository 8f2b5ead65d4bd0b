"""Runs whole scripts in a process forked from the test, which need not import anything and changes nothing here."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

TIMEOUT_S = 600


def run_script(main: Callable[[], object], arguments: Sequence[object], said: Path) -> int | None:
    """Run a script's `main` with these arguments; return its exit code, and write its stdout to `said`."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(main, arguments, said))
    process.start()
    process.join(TIMEOUT_S)
    process.kill()
    return process.exitcode


def _run(main: Callable[[], object], arguments: Sequence[object], said: Path) -> None:
    sys.argv = ["script", *map(str, arguments)]
    with said.open("w", encoding="utf-8") as sys.stdout:
        main()
