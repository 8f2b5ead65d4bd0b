"""A cell's own process prints what the command's terminal would print, in the same words."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from civae_cli.terminal import terminal
from civae_core.benchmark.messages import speak_as, terminal_here

LOG = logging.getLogger("civae_core")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = LOG.handlers[:], LOG.level
    yield
    LOG.handlers[:] = handlers
    LOG.setLevel(level)
    terminal()


def in_another_process(name: str) -> None:
    """Reset logging as in a new process, which then takes over the terminal settings of this one."""
    passed_on = pickle.dumps(terminal_here())
    LOG.handlers.clear()
    LOG.setLevel(logging.NOTSET)
    speak_as(pickle.loads(passed_on), name)


def say() -> None:
    LOG.debug("weights %d", 1)
    LOG.info("half of 100 %")
    LOG.warning("little %s", "overlap")


@pytest.mark.parametrize(
    ("quiet", "verbose", "lines"),
    [
        (True, False, ["warning: d/ours-seed0: little overlap"]),
        (False, False, ["d/ours-seed0: half of 100 %", "warning: d/ours-seed0: little overlap"]),
        (
            False,
            True,
            [
                "debug: d/ours-seed0: weights 1",
                "d/ours-seed0: half of 100 %",
                "warning: d/ours-seed0: little overlap",
            ],
        ),
    ],
)
def test_a_process_says_what_the_terminal_would_and_names_its_cell(
    quiet: bool, verbose: bool, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(quiet, verbose)
    in_another_process("d/ours-seed0")
    say()
    assert capsys.readouterr().err.splitlines() == lines


def test_a_runs_log_has_what_a_quiet_terminal_does_not_show(tmp_path: Path) -> None:
    terminal(quiet=True)
    in_another_process("d/ours-seed0")
    file = logging.FileHandler(tmp_path / "log.txt")
    LOG.addHandler(file)
    say()
    file.close()
    assert (tmp_path / "log.txt").read_text().splitlines() == ["half of 100 %", "little overlap"]


def test_where_nothing_is_set_up_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    LOG.handlers.clear()
    LOG.setLevel(logging.NOTSET)
    in_another_process("d/ours-seed0")
    say()
    assert capsys.readouterr().err == "d/ours-seed0: little overlap\n"
