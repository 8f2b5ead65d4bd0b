"""What the documents show: links, and commands as one would type them."""

import re
import shlex
from pathlib import Path

import typer

from civae_cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Click's base class of parsing errors, wherever this version of Typer keeps it.
CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
VARIABLES = {"$attribute": "young", "$name": "Young"}
"""What the variables of loops in documents may be."""
ELLIPSIS = "…"
"""Stands in documents for further arguments; a command with it is checked as far as it goes, like a bare name."""


def shell_lines(text: str) -> list[str]:
    """The commands of fenced shell blocks, without prompts, continuation lines joined."""
    lines: list[str] = []
    for block in FENCED.findall(text):
        typed = block.replace("\\\n", " ").splitlines()
        prompts = [line[2:] for line in typed if line.startswith("$ ")]
        # A block with prompts shows output too, which is no command.
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
    """What follows civae's name, which environment variables or torchrun may precede."""
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
    """Parses a command line with the real application, without running it; what is wrong with it, or None."""
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
