"""Converts plainly valid values of a command line without pydantic.

Typer has pydantic convert every value, even of options that were not given, and importing it takes as long as Python
and Typer together. Plainly valid values are converted here; all others, and so every message, are left to Typer.
"""

import os
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

UNSURE: Any = object()
"""Marks a value that only Typer can judge."""
_NUMBERS = {int: r"-?(0|[1-9][0-9]{0,17})", float: r"-?[0-9]{1,17}(\.[0-9]{1,17})?"}
_USUAL: dict[str, Any] = {
    **dict.fromkeys(("parser", "clamp", "exists", "writable", "resolve_path", "allow_dash", "path_type")),
    **dict.fromkeys(("file_okay", "dir_okay", "readable"), True),
}
"""Requirements on values that are not checked here, with the setting under which there is nothing to check."""


def taking_plain_values(parameters: list[Any]) -> list[Any]:
    """Make Click's parameters convert plain values themselves; those of a Typer without pydantic stay as they are."""
    for parameter in parameters:
        described = getattr(parameter, "type_descriptor", None)
        if described is None or "process_value" in vars(parameter):
            continue
        limits = described.parameter_info
        if all((getattr(limits, name, None) or None) == usual for name, usual in _USUAL.items()):
            parameter.process_value = _processing(parameter, described.annotation, limits)
    return parameters


def _processing(parameter: Any, kind: Any, limits: Any) -> Callable[[Any, Any], Any]:
    """A parameter's `process_value` that asks Typer only if it must."""
    otherwise, several = parameter.process_value, parameter.multiple or parameter.nargs == -1

    def process_value(ctx: Any, value: Any) -> Any:
        plain = (() if several else None) if value is None else taken(value, kind, limits)
        if plain is UNSURE or (parameter.required and plain in (None, (), [])):
            return otherwise(ctx, value)
        return plain if parameter.callback is None else parameter.callback(ctx, parameter, plain)

    return process_value


def taken(value: Any, kind: Any, limits: Any) -> Any:
    """The value converted to its kind, or UNSURE.

    Args:
        value: a text, several texts, or a default, which is of its kind already.
        kind: as annotated in the command's function.
        limits: has `min` and `max` of a number, None if there is none.
    """
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
        each = [taken(v, kind, limits) for v in value] if isinstance(value, list | tuple) else [UNSURE]
        return UNSURE if UNSURE in each else each
    if kind is str or kind is bool:
        return value if type(value) is kind else UNSURE
    if kind is Path:
        return _path(value)
    if kind in _NUMBERS:
        return _number(value, kind, limits)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next((member for member in kind if value is member or value == member.value), UNSURE)
    return UNSURE


def _path(value: Any) -> Any:
    is_plain = isinstance(value, str | Path) and (os.access(value, os.R_OK) or not os.access(value, os.F_OK))
    return Path(value) if is_plain else UNSURE


def _number(value: Any, kind: type, limits: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(_NUMBERS[kind], value):
        value = kind(value)
    if type(value) is not kind:
        return UNSURE
    within = (limits.min is None or value >= limits.min) and (limits.max is None or value <= limits.max)
    return value if within else UNSURE
