"""Reference pages out of the code, as Markdown: commands, config keys and measures, made when the site is built.

Nothing is written twice: a command's text is its --help, a key's its docstring, a measure's measures.yml.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.M)


def filled(page: str) -> str:
    """A page with what the code says in the place of each mark.

    Raises:
        KeyError: a mark names nothing that is known.
    """
    return MARK.sub(lambda found: PARTS[found.group(1)](), page)


def commands() -> str:
    """Every command of the application: summary, examples, arguments and options by heading."""
    import typer

    from civae_cli.app import app

    root = typer.main.get_command(app)
    context = root.context_class(root, info_name="civae")
    return "\n\n".join(
        _command(name, command, within) for name, command, within in _walk("civae", root, context)
    )


def _walk(name: str, group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        within = command.context_class(command, parent=context, info_name=word)
        if hasattr(command, "commands"):
            yield from _walk(f"{name} {word}", command, within)
        else:
            yield f"{name} {word}", command, within


def _command(name: str, command: Any, context: Any) -> str:
    help_text, _, examples = command.help.partition("\b\n")
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", _paragraphs(help_text), _block("text", usage)]
    if examples:
        lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
        parts.append(_block("bash", "\n".join(lines)))
    for heading, rows in command.sections(context):
        told = [(f"`{names}`", _cell(text)) for names, text in rows if "--help" not in names]
        parts += [_table((heading, ""), told)] if told else []
    return "\n\n".join(parts)


def config() -> str:
    """Every key of the config by section: what it takes, its default, and its docstring."""
    from civae_core.config.schema import BASELINE_DEFAULTS, ORIGINAL_NETWORK, Config

    schema = Config.model_json_schema()
    parts = [_keys("", schema, schema["$defs"])]
    for name, described in schema["properties"].items():
        if "$ref" in described:
            section = schema["$defs"][described["$ref"].rpartition("/")[2]]
            parts += [
                f"## {name}",
                _paragraphs(section["description"]),
                _keys(f"{name}.", section, schema["$defs"]),
            ]
    rows = [
        (f"`objective: {objective}`", f"`{section}.{key}: {value}`")
        for objective, sections in BASELINE_DEFAULTS.items()
        for section, values in sections.items()
        for key, value in values.items()
    ]
    rows += [
        ("`model.network: original`", f"`model.{key}: {_value(value).strip('`')}`")
        for key, value in ORIGINAL_NETWORK.items()
    ]
    parts += [
        "## Defaults of the baselines",
        _table(("where the config says", "and nothing else, this holds"), rows),
    ]
    return "\n\n".join(parts)


def _keys(prefix: str, section: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    rows = []
    for key, described in section["properties"].items():
        if "$ref" in described and described["$ref"].rpartition("/")[2] in definitions:
            continue
        default = _value(described["default"]) if "default" in described else "required"
        rows.append((f"`{prefix}{key}`", _takes(described), default, _cell(described.get("description", ""))))
    return _table(("key", "takes", "default", "meaning"), rows)


def _takes(node: Mapping[str, Any]) -> str:
    """What a key takes, from its JSON schema: `scalar | channel`, `number > 0`, `list of integer`."""
    if "anyOf" in node:
        return " or ".join(_takes(option) for option in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        return f"list of {_takes(node['items'])}"
    if node.get("type") == "null":
        return "nothing"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {node[key]:,}" for key, sign in bounds.items() if key in node]
    return " ".join([str(node.get("type", "anything")), ", ".join(limits)]).strip()


def _value(default: Any) -> str:
    if default is None:
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def measures() -> str:
    """Every number of an evaluation by its question: key, which way is better, meaning."""
    from civae_core.evaluation.measures import ARROWS, SECTIONS

    parts = []
    for section in SECTIONS:
        rows = [
            (
                f"**{_cell(measure.title.replace('{}', '…'))}**",
                f"`{'.'.join(measure.path)}`",
                ARROWS[measure.better],
                _cell(measure.meaning),
            )
            for measure in section.measures
        ]
        table = _table(("measure", "key", "", "meaning"), rows)
        parts += [f"## {section.title}", _paragraphs(section.intro), table]
    return "\n\n".join(part for part in parts if part)


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "config": config, "measures": measures}


def _paragraphs(text: str) -> str:
    return "\n\n".join(
        " ".join(_cell(part).split()) for part in re.split(r"\n\s*\n", text.strip()) if part.strip()
    )


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text without a meaning in Markdown; `code` in it stays code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_<>\[\]])", r"\\\1", p) for p in pieces)
