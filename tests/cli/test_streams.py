"""Standard streams that are closed, and names on them that are not valid UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from civae_cli.streams import set_up_streams

SPEAKING = """\
import os, sys
from pathlib import Path
from civae_cli import app
from civae_core.errors import DataError
from civae_core.progress import progress
@app.app.command()
def speak(out: Path) -> None:
    with progress("work", 1) as bar:
        bar.advance()
    print("said")
    with out.open("w") as file:
        print(file.fileno() > 2, [os.get_inheritable(n) for n in range(3)], sys.stdin.read(), file=file)
    raise DataError("it broke", hint="mend it")
app.main()
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_neither_the_result_nor_the_exit_code(closed: str, tmp_path: Path) -> None:
    """Nor does a file that is written get a stream's descriptor, or the other streams what was meant for these."""
    run = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "", sys.executable, "-c", SPEAKING, "speak", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    said = "" if ">&- 2" in closed else "said\n"
    assert (run.returncode, run.stdout, run.stderr) == (3, said, "")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "True [True, True, True] \n"


def test_names_on_stdin_and_stdout_pass_through_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """As strict as the streams are where the locale is a usual one, such as en_US.UTF-8."""
    name, shown = b"c\xe9.jpg\n", io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name), encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))
    set_up_streams()
    read = sys.stdin.read()
    print(read, end="", flush=True)
    assert os.fsencode(read) == shown.getvalue() == name
