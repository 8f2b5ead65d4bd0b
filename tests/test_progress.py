"""Progress lines: what they say, and when nothing is said."""

import contextvars
import io
import pty
import re
import subprocess
import sys
from os import close, read

import pytest

from civae_core.progress import PlainLines, describe, duration, progress, set_quiet


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_few_seconds_and_once_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines("training", 1000, "images", stream=stream, clock=clock)
    for _ in range(10):
        clock.now += 1.0
        lines.advance(50, loss=1.23456)
    lines.advance(500)
    lines.finish()
    lines.finish()
    printed = stream.getvalue().splitlines()
    assert printed == [
        "training: 250/1,000 images (25 %), 50 images/s, 15s left, loss 1.23",
        "training: 500/1,000 images (50 %), 50 images/s, 10s left, loss 1.23",
        "training: 1,000/1,000 images (100 %), 100 images/s, loss 1.23",
    ]


def test_a_resumed_run_counts_its_speed_from_where_it_began() -> None:
    line = describe("training", 600, 1000, "images", start=500, seconds=2.0, fields={})
    assert line == "training: 600/1,000 images (60 %), 50 images/s, 8s left"


def test_an_unknown_total_shows_a_count_and_a_speed() -> None:
    assert (
        describe("reading", 30, None, "files", 0, 3.0, {"bad": "2"}) == "reading: 30 files, 10 files/s, bad 2"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.6, "4s"), (187, "3m 07s"), (59.9, "1m 00s"), (7500, "2h 05m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def run_loop() -> None:
    with progress("working", 2, "steps") as shown:
        shown.advance(2)


def test_without_a_terminal_one_plain_line_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    run_loop()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("working: 2/2 steps (100 %)")


def test_quiet_other_ranks_and_disabled_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = contextvars.copy_context()
    quiet.run(set_quiet, True)
    quiet.run(run_loop)
    with progress("working", 2, enabled=False) as shown:
        shown.advance()
    monkeypatch.setenv("RANK", "1")
    run_loop()
    assert capsys.readouterr() == ("", "")


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def shown_on_a_terminal(code: str, **environment: str) -> str:
    """What a program writes to stderr, which is a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "120"} | environment
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True)
    close(theirs)
    shown = b""
    try:
        while chunk := read(ours, 4096):
            shown += chunk
    except OSError:  # Linux ends a closed pseudo-terminal with an error
        pass
    close(ours)
    return shown.decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_a_bar_without_colour_when_asked(environment: dict[str, str]) -> None:
    text = shown_on_a_terminal(
        "from civae_core.progress import progress\n"
        "import sys\n"
        "with progress('working', 2, 'steps') as shown:\n"
        "    shown.advance(1, loss=0.5)\n"
        "    print('a line meanwhile', file=sys.stderr)\n"
        "    shown.advance(1)\n",
        **environment,
    )
    plain = COLOUR.sub("", text)
    assert "2/2 steps (100 %)" in plain
    assert "loss 0.5" in plain
    assert "a line meanwhile" in plain
    assert (plain == text) == bool(environment)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_gets_an_error_without_colour_when_asked(environment: dict[str, str]) -> None:
    code = "from civae_cli.errors import report\nreport('it broke', 'mend it', verbose=False)\n"
    text = shown_on_a_terminal(code, **environment)
    assert COLOUR.sub("", text).split() == ["error:", "it", "broke", "hint:", "mend", "it"]
    assert (COLOUR.search(text) is None) == bool(environment)
