"""A command line that cannot be parsed: one sentence that names flag and value, a hint, exit code 2."""

import pytest
from typer.testing import CliRunner

from civae_cli.app import app
from civae_cli.usage import describe

CASES = [
    (["counterfactual"], "IMG… is missing", "civae counterfactual"),
    (
        ["counterfactual", "a.jpg", "--noise", "2"],
        "--noise 2: should be less than or equal to 1",
        "civae counterfactual",
    ),
    (
        ["counterfactual", "a.jpg", "--noise=much"],
        "--noise much: should be a valid number",
        "civae counterfactual",
    ),
    (
        ["counterfactual", "a.jpg", "--align", "maybe"],
        "--align maybe: 'maybe' is not one of 'auto', 'always', 'never'",
        "civae counterfactual",
    ),
    (["counterfactual", "a.jpg", "--treat"], "--treat needs a value", "civae counterfactual"),
    (
        ["counterfactual", "a.jpg", "--treet", "Young=0"],
        "--treet: no such option (did you mean --treat?)",
        "civae counterfactual",
    ),
    (["counterfactal"], "counterfactal: no such command (did you mean counterfactual?)", "civae"),
    (["config", "shw"], "shw: no such command (did you mean show?)", "civae config"),
    (["train-scorer", "data"], "--out is missing", "civae train-scorer"),
    (["info", "a", "b"], "b: too many arguments", "civae info"),
    (["--bogus"], "--bogus: no such option", "civae"),
]


@pytest.mark.parametrize(("arguments", "message", "command"), CASES, ids=[message for _, message, _ in CASES])
def test_what_cannot_be_parsed_is_said_as_all_else(arguments: list[str], message: str, command: str) -> None:
    done = CliRunner().invoke(app, arguments, prog_name="civae")
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr == f"error: {message}\n\nhint: see `{command} --help`\n"


def test_civae_alone_shows_its_help() -> None:
    done = CliRunner().invoke(app, [], prog_name="civae")
    assert "Start here" in done.output and "error:" not in done.output


def test_words_of_another_version_pass_through() -> None:
    class StrangeError(Exception):
        def format_message(self) -> str:
            return "Something new is wrong."

    assert describe(StrangeError()) == ("something new is wrong", "see `civae --help`")
