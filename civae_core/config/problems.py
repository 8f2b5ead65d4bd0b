"""Turns validation errors of the schema into messages in the user's terms, at the place in the user's file."""

import copy
import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from civae_core.attributes import nearest
from civae_core.config.schema import Config, ConflictError
from civae_core.config.yaml import Document, KeyPath, Place, Problem, dotted

Schema = TypeVar("Schema", bound=BaseModel)

MOST_PROBLEMS = 100
"""Maximum number of problems that are described one by one."""

# Placeholders for required keys of `data` that are missing or wrong, so that the rest can still be checked.
_STAND_INS: dict[str, Any] = {"path": "?", "treatment": ["?"]}


def known_keys(model: type[BaseModel] = Config, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key of the schema as a path, sections before their contents."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for section in (field.annotation, *get_args(field.annotation)):  # an optional section is a union
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from known_keys(section, (*prefix, name))


def validate(document: Document) -> tuple[Config | None, list[Problem]]:
    """Check a merged tree against the schema of a training config.

    Returns:
        The config (None if there are problems), and the problems in the schema's order.
    """
    return validate_as(Config, document)


def validate_as(schema: type[Schema], document: Document) -> tuple[Schema | None, list[Problem]]:
    """Check a merged tree against any schema; continues after errors, so that all are found at once.

    Returns:
        The checked values (None if there are problems), and the problems in the schema's order.
    """
    tree: dict[str, Any] = copy.deepcopy(document.tree)
    if "data" in schema.model_fields:
        tree.setdefault("data", {})
    problems: list[Problem] = []
    reported: list[KeyPath] = []
    while True:
        try:
            checked = schema.model_validate(tree)
        except ValidationError as error:
            fresh = [one for e in error.errors() if not _below(e["loc"], reported) for one in _each(dict(e))]
            if not fresh:
                return None, problems
            if len(problems) + len(fresh) > MOST_PROBLEMS:
                shown = fresh[: MOST_PROBLEMS - len(problems)]
                problems += [_describe(details, document, schema) for details in shown]
                problems.append(Problem(None, "", f"… and {len(fresh) - len(shown):,} more"))
                return None, problems
            for details in fresh:
                problems.append(_describe(details, document, schema))
                reported.append(details["loc"])
                _repair(tree, details["loc"])
        else:
            return (None if problems else checked), problems


def _each(error: dict[str, Any]) -> list[dict[str, Any]]:
    """The error itself, or one error for each conflict of a `ConflictError`."""
    found = error.get("ctx", {}).get("error")
    if not isinstance(found, ConflictError):
        return [error]
    return [error | {"ctx": {"error": sentence}} for sentence in found.sentences]


def _below(path: KeyPath, reported: list[KeyPath]) -> bool:
    return any(path[: len(known)] == known for known in reported)


def _repair(tree: dict[str, Any], path: KeyPath) -> None:
    """Remove the value at `path`, or replace it by a placeholder if the schema requires the key."""
    section, key = (*path, None, None)[:2]
    if section == "data" and key is None:
        tree["data"] = dict(_STAND_INS)
    elif section == "data" and key in _STAND_INS:
        tree["data"][key] = _STAND_INS[str(key)]
    elif key is not None and isinstance(tree.get(str(section)), dict):
        tree[str(section)].pop(key, None)
    elif section is not None:
        tree.pop(str(section), None)


def _describe(error: dict[str, Any], document: Document, schema: type[BaseModel]) -> Problem:
    path: KeyPath = error["loc"]
    kind: str = error["type"]
    if kind == "extra_forbidden":
        return Problem(document.keys.get(path), dotted(path), f"unknown key{_did_you_mean(path, schema)}")
    if kind == "missing":
        place = _nearest_place(path, document)
        in_file = place if place and place.line else None  # do not blame a flag for a missing key
        return Problem(in_file, dotted(path), "missing, and it has no default")
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        return Problem(_place_of_mention(message, path, document), *_split_key(message, path, schema))
    place = document.values.get(path) or _nearest_place(path, document)
    return Problem(place, dotted(path), _wrong_value(kind, error))


def _wrong_value(kind: str, error: dict[str, Any]) -> str:
    value = error["input"]
    shown = _show(value)
    limits = error.get("ctx", {})
    expected = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "string_type": "text",
        "bool_type": "true or false",
        "list_type": "a list",
        "model_type": "a section of keys",
        "finite_number": "a finite number",
        "greater_than": f"greater than {limits.get('gt')}",
        "greater_than_equal": f"at least {limits.get('ge')}",
        "less_than": f"less than {limits.get('lt')}",
        "less_than_equal": f"at most {limits.get('le')}",
        "literal_error": f"one of {limits.get('expected')}",
    }.get(kind)
    if expected is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {shown}"
    advice = ""
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        advice = f" (write {int(value)})"
    elif kind == "string_type" and isinstance(value, int | float):
        advice = " (put it in quotes)"
    elif kind == "literal_error" and isinstance(value, str):
        near = nearest(value, re.findall(r"'([^']*)'", str(limits.get("expected"))))
        advice = f" (did you mean {near}?)" if near else ""
    return f"should be {expected}, not {shown}{advice}"


def _show(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    return repr(value)


def _did_you_mean(path: KeyPath, schema: type[BaseModel]) -> str:
    """A suggestion for an unknown key: the same name elsewhere, else the nearest in its section, else of all."""
    name, section = str(path[-1]), path[:-1]
    everywhere = list(known_keys(schema))
    siblings = {str(key[-1]): key for key in everywhere if key[:-1] == section}
    others = {str(key[-1]): key for key in reversed(everywhere) if key[:-1] != section}
    if name in others:
        return f" (did you mean {dotted(others[name])}?)"
    for group in (siblings, others):
        near = nearest(name, group)
        if near:
            return f" (did you mean {dotted(group[near])}?)"
    return ""


def _nearest_place(path: KeyPath, document: Document) -> Place | None:
    """The place of the deepest key on `path` that the user wrote."""
    for depth in range(len(path), 0, -1):
        if path[:depth] in document.keys:
            return document.keys[path[:depth]]
    return None


def _place_of_mention(message: str, section: KeyPath, document: Document) -> Place | None:
    """The place of the last key, or of the quoted item of a list, that a message about several keys names."""
    quoted = re.findall(r"'([^']*)'", message)
    found: Place | None = None
    for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)*", re.sub(r"'[^']*'", "", message)):
        path = (*section, *word.split("."))
        if path not in document.keys:
            continue
        found = document.keys[path]
        items = _at(document.tree, path)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if item in quoted:
                found = document.values.get((*path, index), found)
    return found or _nearest_place(section, document)


def _at(tree: Any, path: KeyPath) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _split_key(message: str, section: KeyPath, schema: type[BaseModel]) -> tuple[str, str]:
    """Split `"treatment: needs …"` in section `data` into (`data.treatment`, `needs …`)."""
    match = re.match(r"([a-z_.]+): (.*)", message, re.DOTALL)
    if match and (*section, *match[1].split(".")) in set(known_keys(schema)):
        return dotted((*section, *match[1].split("."))), match[2]
    return dotted(section), message
