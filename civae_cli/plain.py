"""Values of a command line that are plainly what they should be, taken without pydantic.

Typer lets pydantic convert every value, also of options that nobody gave, and importing it takes as long as Python
and Typer together. Here is taken what needs no judgement; all else goes Typer's way, and with it every message.
"""

import os
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

UNSURE: Any = object()
"""Stands for a value that only Typer can judge."""
_NUMBERS = {int: r"-?(0|[1-9][0-9]{0,17})", float: r"-?[0-9]{1,17}(\.[0-9]{1,17})?"}
_USUAL: dict[str, Any] = {
    **dict.fromkeys(("parser", "clamp", "exists", "writable", "resolve_path", "allow_dash", "path_type")),
    **dict.fromkeys(("file_okay", "dir_okay", "readable"), True),
}
"""What parameters want of their values that is not looked at here, where they want nothing unusual."""


def taking_plain_values(parameters: list[Any]) -> list[Any]:
    """Parameters of Click that take plain values themselves from now on; of a Typer without pydantic as they are."""
    for parameter in parameters:
        described = getattr(parameter, "type_descriptor", None)
        if described is None or "process_value" in vars(parameter):
            continue
        limits = described.parameter_info
        if all((getattr(limits, name, None) or None) == usual for name, usual in _USUAL.items()):
            parameter.process_value = _processing(parameter, described.annotation, limits)
    return parameters


def _processing(parameter: Any, kind: Any, limits: Any) -> Callable[[Any, Any], Any]:
    """`process_value` of a parameter, which asks Typer only where it must."""
    otherwise, several = parameter.process_value, parameter.multiple or parameter.nargs == -1

    def process_value(ctx: Any, value: Any) -> Any:
        plain = (() if several else None) if value is None else taken(value, kind, limits)
        if plain is UNSURE or (parameter.required and plain in (None, (), [])):
            return otherwise(ctx, value)
        return plain if parameter.callback is None else parameter.callback(ctx, parameter, plain)

    return process_value


def taken(value: Any, kind: Any, limits: Any) -> Any:
    """The value as one of its kind, or UNSURE.

    Args:
        value: a text, several, or a default, which is of its kind already.
        kind: as the command's function has it annotated.
        limits: `min` and `max` of a number; None where there is none.
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
