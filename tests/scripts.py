"""Scripts run whole, in a process forked from the test: it has nothing to import, and changes nothing here."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

TIMEOUT_S = 600


def run_script(main: Callable[[], object], arguments: Sequence[object], said: Path) -> int | None:
    """What a script's `main` ends with, given such arguments; what it prints on stdout is written to `said`."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(main, arguments, said))
    process.start()
    process.join(TIMEOUT_S)
    process.kill()
    return process.exitcode


def _run(main: Callable[[], object], arguments: Sequence[object], said: Path) -> None:
    sys.argv = ["script", *map(str, arguments)]
    with said.open("w", encoding="utf-8") as sys.stdout:
        main()
