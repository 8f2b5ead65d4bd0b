"""What `--help` promises for every command: an example that parses, options under headings, --json."""

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from civae_cli.app import app
from civae_cli.help import CivaeCommand


def commands(group: Any, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command that does something, by its path of names."""
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*prefix, name))
        else:
            found[*prefix, name] = command
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_json_and_an_example_and_headings(names: tuple[str, ...]) -> None:
    command = COMMANDS[names]
    assert isinstance(command, CivaeCommand)
    assert "--json" in {flag for parameter in command.params for flag in parameter.opts}
    shown = CliRunner().invoke(app, [*names, "--help"]).output
    assert re.search(rf"Examples?:\n    (torchrun .*-m civae_cli|civae) {' '.join(names)}", shown)
    assert shown.index("What is printed:") > shown.index("Usage:")
    assert shown.rstrip().endswith("-h, --help     Show this message and exit.")


def test_options_stand_once_and_under_their_heading() -> None:
    shown = CliRunner().invoke(app, ["counterfactual", "--help"]).output
    sections = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n(?=  ))+)", shown, re.M))
    assert list(sections)[:3] == ["Arguments", "What is asked", "Options"]
    assert "--treat" in sections["What is asked"] and "--device" in sections["Computing"]
    flags = [flag for parameter in COMMANDS["counterfactual",].params for flag in parameter.opts[:1]]
    for flag in flags:
        lines = [line for line in shown.splitlines() if re.match(rf"\s+(-\w, )?{re.escape(flag)}\b", line)]
        assert flag.startswith("-") <= (len(lines) == 1), flag


def test_commands_are_listed_whole_and_by_purpose() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = shown[shown.index("Start here:") :]
    assert "..." not in listed, "no sentence is cut"
    for names in COMMANDS:
        assert re.search(rf"^  {names[0]}\s", listed, re.M), names
    assert listed.index("Ask a trained model:") < listed.index("  counterfactual") < listed.index("Measure:")
