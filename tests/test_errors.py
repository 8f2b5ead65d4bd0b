"""Every error says what to do: an error without a hint is found in the source, whether or not a test provokes it."""

import ast
import errno
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core import os_errors
from civae_core.errors import flag_as_typed
from civae_core.files import describe_os_error

ROOT = Path(__file__).parents[1]

WITHOUT_HINT = {
    (
        "civae_core/data/sources/files.py",
        "read",
    ): "a reason in the list of rejected images, whose error has the hint",
    ("civae_core/serve/server.py", "run"): "a page that was told to end, and did",
}
"""Errors that need no hint: file and function, and why."""


def sources() -> dict[str, str]:
    files = sorted(file for package in ("civae_core", "civae_cli") for file in (ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def kinds_of_error(texts: Iterable[str]) -> set[str]:
    """CivaeError and its subclasses, in whichever file."""
    base_of = dict(found for text in texts for found in re.findall(r"^class (\w+)\((\w+)\)", text, re.M))
    known = {"CivaeError"}
    while more := {name for name, base in base_of.items() if base in known} - known:
        known |= more
    return known


def hintless(text: str, kinds: set[str]) -> list[tuple[str, int]]:
    """Function and line of every error that is made without a hint, or with the hint None."""
    if not any(f"{kind}(" in text for kind in kinds):
        return []
    nodes = list(ast.walk(ast.parse(text)))  # outer functions before inner ones
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    lines = [node.lineno for node in nodes if isinstance(node, ast.Call) and lacks_hint(node, kinds)]
    return [([f.name for f in functions if f.lineno <= n <= (f.end_lineno or n)][-1], n) for n in lines]


def lacks_hint(call: ast.Call, kinds: set[str]) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    hints = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
    return name in kinds and (not hints or (isinstance(hints[0], ast.Constant) and not hints[0].value))


def test_every_error_has_a_hint_or_a_reason_for_none() -> None:
    texts = sources()
    kinds = kinds_of_error(texts.values())
    assert {"UsageError", "DataError", "ConfigError", "RefusedError"} <= kinds
    found = {
        (file, function): f"{file}:{line}"
        for file, text in texts.items()
        for function, line in hintless(text, kinds)
    }
    assert [found[place] for place in found if place not in WITHOUT_HINT] == []
    assert WITHOUT_HINT.keys() <= found.keys(), "an exception that is needed no more"


@pytest.mark.parametrize(
    ("made", "count"),
    [
        ("raise UsageError('x')", 1),
        ("raise errors.UsageError('x', hint=None)", 1),
        ("raise UsageError('x', hint='')", 1),
        ("failed = [UsageError('x')]", 1),
        ("raise UsageError('x', hint=found)", 0),
        ("raise ValueError('x')", 0),
    ],
)
def test_an_error_without_a_hint_would_be_found(made: str, count: int) -> None:
    assert [name for name, _ in hintless(f"def f():\n    {made}", {"UsageError"})] == ["f"] * count


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space, then run the same command again"),
        (errno.EACCES, "choose a file or folder that you may read and write"),
        (errno.EROFS, "choose a folder that you may write to"),
        (errno.EMFILE, "`ulimit -n 4096`"),
        (errno.EXDEV, "run it again with -v"),
    ],
)
def test_what_the_system_refuses_has_a_hint(
    number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, "refused", "somewhere")

    monkeypatch.setattr("civae_core.inspection.inspect", refuse)
    (tmp_path / "x").touch()
    done = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert done.exit_code == 1 and done.stderr.startswith("error: somewhere: refused\n\nhint: ")
    assert hint in done.stderr


def test_a_path_longer_than_any_can_be_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["sample", "a" * 300])
    assert (
        done.exit_code == 2
        and "File name too long\n\nhint: no file or folder can have so long" in done.stderr
    )


def test_a_folder_that_cannot_be_written_always_has_a_way_out() -> None:
    for number in (errno.ENOSPC, errno.EMFILE, errno.EXDEV, 0):
        assert describe_os_error(OSError(number, "refused"), Path("runs/a")).hint


def test_what_cannot_be_read_is_no_matter_of_the_system_where_it_is_damaged() -> None:
    assert os_errors.hint_on_reading(ValueError("torn"), "take another") == "take another"
    assert (
        os_errors.hint_on_reading(FileNotFoundError(errno.ENOENT, ""), "take another") == os_errors.SPELLING
    )
    assert "chmod" in os_errors.hint_on_reading(PermissionError(errno.EACCES, ""))


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (3, "--x 3"),
        (0.5, "--x 0.5"),
        (Path("a/b"), "--x a/b"),
        (True, "--x"),
        (["a", "b"], "--x a"),
        ([], "--x"),
    ],
)
def test_a_flag_is_named_with_its_value_where_it_has_one(value: object, typed: str) -> None:
    assert flag_as_typed("--x", value) == typed
