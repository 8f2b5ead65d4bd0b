"""The layout of `--help`: options under headings, commands by their purpose, readable without colour."""

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

from civae_cli.plain import taking_plain_values

ASKING, OWN = "What is asked", "Options"
"""Headings that come first, where a command has them."""
LONGEST_SUMMARY = 300
"""Limit on a command's first sentence in a list of commands, in characters: enough for all of it."""
_KINDS = {"int": "N", "float": "NUMBER", "str": "TEXT", "path": "PATH"}
"""What an option takes, in readable words, if it has no metavar of its own."""


class CivaeCommand(TyperCommand):
    """A command whose options stand under the headings that their `rich_help_panel` names, the common ones last."""

    def get_params(self, ctx: Any) -> list[Any]:
        return taking_plain_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does, but note what was typed on an error, and leave values as text during completion.

        Converting them would import pydantic, which takes long.
        """
        if not ctx.resilient_parsing:
            typed = list(args)
            try:
                parsed: list[str] = super().parse_args(ctx, args)
            except Exception as error:
                error.typed, error.asked = typed, ctx.command_path  # type: ignore[attr-defined]
                raise
            return parsed
        options, rest, _ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            value, origin = parameter.consume_value(ctx, options)
            ctx.params[str(parameter.name)] = value
            ctx.set_parameter_source(str(parameter.name), origin)
        ctx.args = rest
        return ctx.args

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] IMG…`: arguments by their own names, optional ones in brackets."""
        return ["[OPTIONS]", *(_argument(p) for p in self.get_params(ctx) if p.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_sections(formatter, self.sections(ctx))

    def sections(self, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
        """Headings with their rows: a parameter's names and what it takes, and its help text."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], ASKING: [], OWN: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                sections["Arguments"].append((_argument(parameter), record[1]))
                continue
            heading = getattr(parameter, "rich_help_panel", None) or OWN
            if parameter.name == "help":
                heading = list(sections)[-1]
            sections.setdefault(heading, []).append((_in_words(record[0]), record[1]))
        return list(sections.items())


def _argument(parameter: Any) -> str:
    """`IMG…`, or `[RUN…]` if it is optional."""
    own = re.sub(r"[][…]|\.{3}", "", parameter.metavar or str(parameter.name).upper())
    name = own + ("…" if parameter.nargs != 1 else "")
    return name if parameter.required else f"[{name}]"


def _in_words(names: str) -> str:
    """`--n <int range>` as `--n N`."""
    return re.sub(r"<(\w+)(?: range)?>", lambda kind: _KINDS.get(kind[1], kind[0]), names)


def write_sections(formatter: Any, sections: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    """Write each heading that has rows, with its rows."""
    for heading, rows in sections:
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


def format_commands(group: Any, ctx: Any, formatter: Any) -> None:
    """Write the commands of a group under their `rich_help_panel`, each with its whole first sentence."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        heading = getattr(command, "rich_help_panel", None) or "Commands"
        summary = command.get_short_help_str(limit=LONGEST_SUMMARY)
        sections.setdefault(heading, []).append((name, summary))
    write_sections(formatter, sections.items())
