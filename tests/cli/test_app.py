"""The command line as a whole: start-up, help, errors, exit codes, and who gets which stream."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from civae_cli.app import app
from civae_cli.errors import CivaeGroup
from civae_cli.terminal import terminal
from civae_core.errors import (
    CivaeError,
    DataError,
    DivergedError,
    InterruptedRunError,
    PreemptedError,
    UsageError,
)

HEAVY = ("torch", "numpy", "pydantic", "matplotlib", "PIL", "safetensors")


def heavy_imports(code: str) -> set[str]:
    """The heavy packages that a program has imported by its end, in a fresh interpreter."""
    check = (
        "import sys\n"
        "try:\n"
        f"    exec({code!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [["--help"], ["counterfactual", "--help"], ["config", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; sys.argv = ['civae', *{words!r}]; from civae_cli.app import main; main()"
    assert heavy_imports(code) == set()


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import os, sys; sys.argv = ['civae']\n"
        "os.environ |= {'_CIVAE_COMPLETE': 'complete_bash', 'COMP_WORDS': 'civae\\ncon', 'COMP_CWORD': '1'}\n"
        "from civae_cli.app import main; main()"
    )
    assert heavy_imports(code) == set()


@pytest.mark.parametrize("name", ["pydantic", "torch"])
def test_the_import_check_can_fail(name: str) -> None:
    assert name in heavy_imports(f"import {name}")


def walk(command: typer.core.TyperGroup, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, child in command.commands.items():
        found.append((*prefix, name))
        if hasattr(child, "commands"):
            found += walk(child, (*prefix, name))
    return found


@pytest.mark.parametrize("names", walk(typer.main.get_command(app)), ids=" ".join)
def test_every_command_has_help(names: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*names, "--help"])
    assert result.exit_code == 0
    assert f"Usage: root {' '.join(names)}".replace("root", "civae") in result.output
    summary = result.output.split("\n\n")[1].strip()
    assert summary, "no description"


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("civae ")


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["config", "shw"], ["config", "show", "--no-such-option"]]
)
def test_unknown_commands_and_options_are_usage_errors(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


# A small application whose one command fails as told.


def failing(error: BaseException, name: str = "fail") -> typer.Typer:
    broken = typer.Typer(cls=CivaeGroup, rich_markup_mode=None, pretty_exceptions_enable=False)

    @broken.callback()
    def root() -> None:
        """Root."""

    @broken.command(name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def fail(verbose: bool = typer.Option(False, "--verbose", "-v")) -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CivaeError("it broke"), 1),
        (UsageError("it broke"), 2),
        (DataError("it broke"), 3),
        (DivergedError("it broke"), 4),
        (PreemptedError("it broke"), 75),
        (InterruptedRunError("it broke"), 130),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(error: CivaeError, code: int) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    stopped = code in (75, 130)  # asked to stop, and did: no error
    assert result.stderr == ("it broke\n" if stopped else "error: it broke\n")
    assert result.stdout == ""


LEFT_BEHIND = """\
import sys, threading
from civae_cli import app
from civae_core.errors import DataError
@app.app.command()
def fail() -> None:
    threading.Thread(target=threading.Event().wait, daemon=DAEMON).start()  # as a library's that is left
    print("said")
    raise DataError("it broke")
sys.argv = ["civae", "fail"]
app.main()
"""


@pytest.mark.parametrize("several", [False, True])
def test_one_of_several_processes_ends_at_once_whatever_threads_are_left(several: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND.replace("DAEMON", str(not several))],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"WORLD_SIZE": "2" if several else "1"},
    )
    assert (run.returncode, run.stdout, run.stderr) == (3, "said\n", "error: it broke\n")


def test_a_hint_follows_a_blank_line() -> None:
    result = CliRunner().invoke(failing(DataError("a.jpg: truncated", hint="copy it again")), ["fail"])
    assert result.stderr == "error: a.jpg: truncated\n\nhint: copy it again\n"


def test_ctrl_c_is_130() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"])
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["prepare-data", "photos"], True),
        (["prepare-data", "photos", "--overwrite"], False),
        (["train", "-v"], True),
        (["train", "--resume", "never"], False),
        (["train", "--dry-run"], False),
        (["quickstart"], True),
        (["benchmark"], True),
        (["evaluate", "train"], False),
    ],
)
def test_what_ctrl_c_stopped_is_told_to_go_on_only_where_it_does(words: list[str], goes_on: bool) -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt(), words[0]), words)
    assert result.exit_code == 130
    hint = "\nhint: run the same command again to continue\n"
    assert result.stderr.endswith(f"error: interrupted\n{hint if goes_on else ''}")


def test_an_unforeseen_error_is_one_sentence_and_with_v_a_traceback() -> None:
    broken = failing(ZeroDivisionError("division by zero\nand more"))
    plain = CliRunner().invoke(broken, ["fail"])
    assert plain.exit_code == 1
    assert plain.stderr.startswith("error: internal error: ZeroDivisionError: division by zero\n\nhint: ")
    assert "Traceback" not in plain.stderr
    verbose = CliRunner().invoke(broken, ["fail", "-v"])
    assert verbose.exit_code == 1
    assert "Traceback" in verbose.stderr


def test_a_file_that_may_not_be_opened_is_no_internal_error() -> None:
    result = CliRunner().invoke(failing(PermissionError(13, "Permission denied", "/x/y")), ["fail"])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: /x/y: Permission denied\n\nhint: choose a file or folder that you may"
    )


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Tried to allocate 2.00 GiB"),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=str,
)
def test_memory_running_out_is_no_internal_error(error: Exception) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: out of memory: {error}\n\nhint: use smaller batches")


def test_typers_own_errors_pass_through() -> None:
    result = CliRunner().invoke(failing(typer.BadParameter("not that")), ["fail"])
    assert result.exit_code == 2
    assert "not that" in result.stderr
    assert CliRunner().invoke(failing(typer.Exit(7)), ["fail"]).exit_code == 7


def test_a_reader_that_leaves_early_causes_no_noise() -> None:
    command = f"{sys.executable} -m civae_cli config schema | head -c 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("{", "")


# Terminal.


def test_streams(capsys: pytest.CaptureFixture[str]) -> None:
    voice = terminal(json=True)
    voice.say("a remark")
    voice.result({"β": 1}, "text")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"β": 1}
    assert err == "a remark\n"


def test_a_name_that_is_not_utf8_leaves_valid_json_that_reads_back_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal(json=True).json({"β": "\\c\udce9"})
    out = capsys.readouterr().out
    assert out == '{"β": "\\\\c\\udce9"}\n'
    assert json.loads(out) == {"β": "\\c\udce9"}


def test_quiet_keeps_the_result_and_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    voice = terminal(quiet=True)
    logger = logging.getLogger("civae_core.somewhere")
    voice.say("a remark")
    logger.info("news")
    logger.warning("careful")
    voice.result({}, "text")
    assert capsys.readouterr() == ("text\n", "warning: careful\n")
    voice = terminal()
    logger.info("news")
    logger.debug("detail")
    assert capsys.readouterr().err == "news\n"
    terminal(verbose=True)
    logger.debug("detail")
    assert capsys.readouterr().err == "debug: detail\n"
    terminal()


def test_only_the_first_process_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    voice = terminal()
    voice.say("a remark")
    voice.data("a path")
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("RANK")
    assert "RANK" not in os.environ
    terminal()
