"""Configs as text: YAML that loads back to the same config, a commented template, and the JSON schema."""

import textwrap
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from civae_core.config.schema import BASELINE_DEFAULTS, Config
from civae_core.config.yaml import add_core_schema

_WIDTH = 100


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would not read as a string; writes lists on one line."""


add_core_schema(_Dumper)
# Unicode's own line breaks would be lost in plain scalars; in double quotes they are escaped.
_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))
)


def dump_config(config: Config) -> str:
    """The whole config as YAML, sections in the schema's order; `load_config` restores the same config."""
    return to_yaml(config.model_dump(mode="json"))


def to_yaml(value: Any) -> str:
    """Plain values as YAML in the project's style; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def config_schema() -> dict[str, Any]:
    """The JSON schema of a config file, descriptions included, for editors that complete and check YAML."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def config_template() -> str:
    """A commented YAML file with every key at its default, and examples for required keys.

    It loads as it is, and only `data` differs from the defaults. Keys for which a baseline's objective has another
    default are commented out, so that `objective: cvae` alone turns the file into a plain CVAE.
    """
    examples = {"path": "data/faces-64", "treatment": ["Young"], "covariates": ["Male"], "descendants": []}
    header = (
        "# A config for `civae train`. Only data.path and data.treatment are required. The values below are the"
        "\n# defaults, except for the example path and attributes under `data`. Training progress is counted in"
        "\n# images. A key that is commented out has a default of its own under `objective: cvae`, under"
        "\n# `objective: original`, or under both.\n"
    )
    parts = [header]
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            summary = " ".join((section.__doc__ or "").split())
            parts.append(f"\n{_comment(summary)}{name}:\n")
            values = examples if name == "data" else {}
            for key, item in section.model_fields.items():
                entry = _entry(key, item, values.get(key, item.default))
                if any(key in defaults.get(name, {}) for defaults in BASELINE_DEFAULTS.values()):
                    entry = "".join(f"# {line}\n" for line in entry.splitlines()).replace("# # ", "# ")
                parts.append(textwrap.indent(entry, "  "))
        else:
            parts.append("\n" + _entry(name, field, field.default))
    return "".join(parts)


def _entry(name: str, field: FieldInfo, value: Any) -> str:
    choices = _choices(field.annotation)
    text = field.description or ""
    if choices:
        text += f" One of: {', '.join(choices)}."
    return _comment(text) + to_yaml({name: value})


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 10, initial_indent="# ", subsequent_indent="# ") + "\n"


def _choices(annotation: Any) -> list[str]:
    """The words of a Literal or of a Literal | None; empty if other values are allowed too."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    words = [option for option in options if option is not type(None)]
    if len(words) == 1 and get_origin(words[0]) is Literal:
        return [str(word) for word in get_args(words[0])]
    return []
