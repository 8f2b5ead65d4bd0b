"""Commands are imported only when they are needed, and the list of commands says the same as their own help."""

import os
import subprocess
import sys

import typer

from civae_cli.app import app
from civae_cli.commands import COMMANDS
from civae_cli.help import LONGEST_SUMMARY

LISTED = {name: summary for of_heading in COMMANDS.values() for name, summary in of_heading.items()}
MODULES = {name: f"civae_cli.{name.replace('-', '_')}" for name in LISTED}
IMPORTED = """
import os, sys
sys.argv = ["civae", *sys.argv[1:]]
from civae_cli.app import main
try:
    main()
finally:
    print("IMPORTED", *sys.modules, file=sys.stderr)
"""


def imported(*words: str, **environment: str) -> set[str]:
    """All modules that a command line has imported by its end, in a fresh interpreter."""
    command = [sys.executable, "-c", IMPORTED, *words]
    # Coverage, where it is measured, would import modules of its own.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | environment)
    return set(run.stderr.splitlines()[-1].split()[1:])


def test_the_list_says_of_each_command_what_its_help_says_first() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert list(commands) == list(LISTED)
    said = {name: command.get_short_help_str(limit=LONGEST_SUMMARY) for name, command in commands.items()}
    assert {name: text.rstrip(".") for name, text in said.items()} == {
        name: summary.rstrip(".") for name, summary in LISTED.items()
    }


def test_listing_the_commands_imports_none_of_them() -> None:
    found = imported("--help")
    assert found.isdisjoint({*MODULES.values(), "logging", "json", "civae_cli.options", "rich"})
    assert "civae_cli.app" in found


def test_completing_a_name_imports_none_of_them() -> None:
    asked = {"_CIVAE_COMPLETE": "complete_bash", "COMP_WORDS": "civae tr", "COMP_CWORD": "1"}
    assert imported(**asked).isdisjoint({*MODULES.values(), "logging", "json", "civae_cli.options", "rich"})


def test_a_command_imports_no_other() -> None:
    found = imported("doctor", "--help")
    assert found & set(MODULES.values()) == {"civae_cli.doctor"}
