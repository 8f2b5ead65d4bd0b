"""What is wrong with a command line, in the style of all other errors: the flag, its value, and what to do."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_REPLACED = (
    (r"^Value error, ", ""),
    (r"^Input should be ", "should be "),
    (r", unable to parse string as .*$", ""),
)
"""Wording of pydantic around what is wrong, and what replaces it."""


def describe(error: Any) -> tuple[str, str]:
    """Message and hint for a parsing error of Click, whichever version of it Typer is built on.

    `CivaeCommand` has noted on the error what was typed and for which command, since not every such error knows.
    """
    context = getattr(error, "ctx", None)
    typed: Sequence[str] = getattr(error, "typed", ())
    command = context.command_path if context else getattr(error, "asked", "civae")
    hint = f"see `{command} --help`"
    return _message(error.format_message().strip(), typed, getattr(error, "possibilities", None)), hint


def _message(said: str, typed: Sequence[str], possible: Sequence[str] | None) -> str:
    if found := re.match(r"Invalid value for '([^']*)': (.*)", said, re.S):
        name = found[1].split(" / ")[-1]
        value = _value_of(name, typed)
        return f"{name}{f' {value}' if value is not None else ''}: {_plain(found[2])}"
    if found := re.match(r"No such option:? '?(--?[^\s']+)", said):
        near = get_close_matches(found[1], possible or (), n=1)
        return f"{found[1].rstrip('.')}: no such option" + (f" (did you mean {near[0]}?)" if near else "")
    if found := re.match(r"No such command '([^']*)'\.?(?: Did you mean '([^']*)'\?)?", said):
        return f"{found[1]}: no such command" + (f" (did you mean {found[2]}?)" if found[2] else "")
    if found := re.match(r"Missing (?:argument|option|parameter) '([^']*)'", said):
        return f"{found[1]} is missing"
    if found := re.match(r"Option '([^']*)' requires an argument", said):
        return f"{found[1]} needs a value"
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", said):
        return f"{found[1]}: too many arguments"
    return _plain(said)


def _value_of(flag: str, typed: Sequence[str]) -> str | None:
    """The last value given to a flag: the word after it, or what follows its `=`."""
    for place in range(len(typed) - 1, -1, -1):
        if typed[place] == flag and place + 1 < len(typed):
            return typed[place + 1]
        if typed[place].startswith(f"{flag}="):
            return typed[place].partition("=")[2]
    return None


def _plain(text: str) -> str:
    for pattern, instead in _REPLACED:
        text = re.sub(pattern, instead, text)
    text = text.rstrip(".")
    return text[:1].lower() + text[1:]
