"""The application's commands: their summaries are kept here, and each command is imported when it is needed.

Importing and building all of them took a quarter of the time of `--help` and of every completion.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from civae_cli.errors import CivaeGroup
from civae_cli.help import CivaeCommand, format_commands

COMMANDS = {
    "Start here": {"quickstart": "Try everything on built-in faces, in minutes."},
    "Data and training": {
        "prepare-data": "Pack photographs and their attributes for training, and report on them.",
        "train": "Train a model; run the same command again to continue where it stopped.",
    },
    "Ask a trained model": {
        "counterfactual": "Show pictures as they would have looked under another treatment.",
        "sample": "Draw images from the learned prior.",
        "effects": "Show the average effect of a treatment: mean images and effect maps, overall and by covariate.",
        "serve": "Show trained models as a web page: a photo, sliders, and what changes.",
    },
    "Measure": {
        "evaluate": "Score models, or the images of other programs, on held-out data, against the truth where it is "
        "known.",
        "benchmark": "Train our method and the baselines with the same budget, and score them in one table.",
        "train-scorer": "Train an independent scorer of all attributes, by which `evaluate` judges images.",
    },
    "Share": {"export": "Export a model for other programs."},
    "Inspect and configure": {
        "info": "Describe prepared data, a run, a checkpoint, a model file or a scorer made by `train-scorer`.",
        "doctor": "Check this machine: packages, devices, disk.",
        "config": "Write, show, check and convert configs.",
    },
}
"""By heading, the commands, one module each, with the first sentence of their --help; a test compares the two."""


class Commands(CivaeGroup):
    """The commands of `COMMANDS`, and any that an application adds."""

    def __init__(self, *, commands: MutableMapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loaded(commands)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        format_commands(_listed(), ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        listed = _listed(self.params)
        return listed.shell_complete(typer.Context(listed, parent=ctx), incomplete)


class _Loaded(MutableMapping[str, Any]):
    """Commands by name, each imported and built on first access."""

    def __init__(self, added: MutableMapping[str, Any]) -> None:
        names = [name for of_heading in COMMANDS.values() for name in of_heading]
        self._found: dict[str, Any] = dict.fromkeys(names) | dict(added)

    def __getitem__(self, name: str) -> Any:
        if self._found[name] is None:
            self._found[name] = _load(name)
        return self._found[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _load(name: str) -> Any:
    """The command that the module of this name defines, or its application with several commands."""
    inner = name.replace("-", "_")
    module = import_module(f"civae_cli.{inner}")
    application = getattr(module, "app", None)
    if application is None:
        application = typer.Typer(add_completion=False, rich_markup_mode=None)
        application.command(name, cls=CivaeCommand)(getattr(module, inner))
    return typer.main.get_command(application)


def _listed(params: list[Any] | None = None) -> TyperGroup:
    """A group of stand-ins for the commands, which hold only what a list of commands shows."""
    commands = [
        TyperCommand(name, help=summary, rich_help_panel=heading)
        for heading, of_heading in COMMANDS.items()
        for name, summary in of_heading.items()
    ]
    return TyperGroup(commands=commands, params=params)
