"""What the documents show: links, and commands as a user would type them."""

import inspect
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from civae_cli.app import app
from civae_core.assignments import interventions_on, parse_values
from civae_core.attributes import Attribute
from civae_core.config import load_config
from civae_core.data.selection import parse_selection
from civae_core.errors import UsageError
from civae_core.inference.sheets import parse_grid, parse_seeds

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Click's base class of parsing errors, wherever this version of Typer keeps it.
CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
VARIABLES = {"$attribute": "young", "$name": "Young"}
"""Values for the variables of loops in documents."""
ELLIPSIS = "…"
"""Stands for further arguments in documents; such a command is checked as far as it goes, like a bare name."""

EXAMPLES = re.compile(r"^Examples?:\n((?:  .*\n?)+)", re.M)


def leaf_commands(group: Any, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command that is not a group, by its path of names."""
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= leaf_commands(command, (*prefix, name))
        else:
            found[*prefix, name] = command
    return found


def examples(command: Any) -> list[list[str]]:
    """Arguments of the commands that a command's `--help` shows as examples."""
    blocks = EXAMPLES.findall(inspect.cleandoc(command.help or "").replace("\b\n", ""))
    return civae_commands("\n".join(f"```bash\n{inspect.cleandoc(block)}\n```" for block in blocks))


def shell_lines(text: str) -> list[str]:
    """The commands of fenced shell blocks, without prompts, continuation lines joined."""
    lines: list[str] = []
    for block in FENCED.findall(text):
        typed = block.replace("\\\n", " ").splitlines()
        prompts = [line[2:] for line in typed if line.startswith("$ ")]
        # A block with prompts also shows output, which is not a command.
        lines += prompts or [line for line in typed if line.strip() and not line.startswith("#")]
    return lines


def civae_commands(text: str) -> list[list[str]]:
    """Arguments of every `civae …` in fenced shell blocks and in `code` that starts with it."""
    code = re.findall(r"`(civae [^`\n]+)`", text)
    named = [f"{line} {ELLIPSIS}" if re.fullmatch(r"civae [\w-]+", line) else line for line in code]
    found = []
    for line in shell_lines(text) + named:
        for name, value in VARIABLES.items():
            line = line.replace(name, value)
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in ("&&", "||", "|", ";", "&"):
                found.append(words)
                words = []
            else:
                words.append(word)
    return [arguments for words in found if (arguments := _of_civae(words)) is not None]


def is_whole(arguments: list[str]) -> bool:
    """Whether a command can be run as it is shown."""
    return not any(ELLIPSIS in word for word in arguments)


def _of_civae(words: list[str]) -> list[str] | None:
    """The arguments of `civae`, which environment variables or torchrun may precede; None for other programs."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words and Path(words[0]).name == "torchrun" and "civae_cli" in words:
        words = words[words.index("civae_cli") :]
        words[0] = "civae"
    if not words or Path(words[0]).name != "civae":
        return None
    redirections = [i for i, word in enumerate(words) if word.startswith((">", "<", "2>"))]
    return words[1 : redirections[0]] if redirections else words[1:]


def parse(arguments: list[str]) -> str | None:
    """Parse a command line with the real application, without running it; return what is wrong with it, or None."""
    command, context = typer.main.get_command(app), None
    name = "civae"
    while hasattr(command, "commands"):
        context = command.context_class(command, parent=context, info_name=name)
        if not arguments or arguments[0] in (ELLIPSIS, "--help", "-h"):
            return None
        if arguments[0].startswith("-"):
            known = {flag for parameter in command.params for flag in parameter.opts}
            return None if arguments[0] in known else f"no option {arguments[0]!r}"
        name, arguments = arguments[0], arguments[1:]
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    if "--help" in arguments:
        return None
    try:
        command.make_context(name, [word for word in arguments if word != ELLIPSIS], parent=context)
    except CLICK_ERROR as error:
        is_missing = type(error).__name__ == "MissingParameter"
        return None if is_missing and ELLIPSIS in arguments else f"{name}: {error.format_message()}"
    return None


def wrong_value(arguments: list[str]) -> str | None:
    """What is wrong with values that commands parse after their options, or None.

    Attributes are those of `configs/celeba-64-young.yml`, which the examples of `--help` use; config files are those
    of the repository.
    """
    given = [
        *pairwise(arguments),
        *(tuple(word.split("=", 1)) for word in arguments if word.startswith("--")),
    ]
    values: dict[str, list[str]] = {}
    for flag, value in (pair for pair in given if len(pair) == 2 and pair[0].startswith("-")):
        values.setdefault(flag, []).append(value)
    roles = load_config([ROOT / "configs" / "celeba-64-young.yml"]).data
    treatments = [Attribute(name, "binary", 0.0, 1.0) for name in roles.treatment]
    inputs = [*roles.treatment, *roles.covariates]
    files = [ROOT / word for word in arguments if word.startswith("configs/")]
    try:
        for word in arguments:
            if "#" in word and parse_selection(word) is None:
                return f"{word}: no selection of prepared images"
        if "--treat" in values:
            interventions_on(values["--treat"], treatments)
        parse_values(values.get("--attr", []), inputs)
        for grid in values.get("--grid", []):
            parse_grid(grid, inputs)
        for seeds in values.get("--seeds", []):
            parse_seeds(seeds)
        if arguments[0] != "benchmark" and (files or "--set" in values):
            load_config(files or [ROOT / "configs" / "celeba-64-young.yml"], values.get("--set", []))
        for flag, known in {
            "--treatment": inputs,
            "--covariate": inputs,
            "--by": roles.covariates,
            "--descendant": roles.descendants,
        }.items():
            for name in set(values.get(flag, [])) - set(known):
                return f"{flag} {name}: no such attribute"
    except UsageError as error:
        return error.message
    missing = [file.name for file in files if not file.is_file()]
    return f"no file configs/{missing[0]}" if missing else None
