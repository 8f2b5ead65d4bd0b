"""YAML with positions: plain values, and where each of them was written.

Scalars follow YAML 1.2's core schema, so `1e-4` is a number and `no` a string; `500_000` is a number
too, as in Python. Keys may not repeat, and there are no aliases: a config is a tree.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from civae_core.bounded_yaml import BoundedLoader

KeyPath = tuple[str | int, ...]

_LONGEST_NUMBER = 300  # digits; a double holds no more, and long ones take quadratic time

_PREFIX = "tag:yaml.org,2002:"
_SCALARS: tuple[tuple[str, str, Iterable[str]], ...] = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


def add_core_schema(resolver: type[yaml.resolver.BaseResolver]) -> None:
    """Makes a loader or dumper class recognise YAML 1.2's scalars."""
    for name, pattern, first in _SCALARS:
        resolver.add_implicit_resolver(_PREFIX + name, re.compile(rf"(?:{pattern})\Z"), list(first))


class _Loader(BoundedLoader):
    """Composes nodes only; values are built here, with their places."""


_Loader.yaml_implicit_resolvers = {}  # YAML 1.1's, by which `no` is false
add_core_schema(_Loader)


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written; line and column count from 1, and are 0 outside files."""

    order: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config: where, which key, and what."""

    place: Place | None
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place or ""), self.key, self.message) if part)


@dataclass
class Document:
    """A parsed tree. `keys` and `values` give the place of each key and of each value by its path."""

    tree: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def adopt(self, path: KeyPath, other: "Document", value: Any) -> None:
        """Takes over the places of `value`, which stands at `path` in another document."""
        for here in paths_of(value, path):
            for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
                if here in theirs:
                    mine[here] = theirs[here]

    def forget(self, path: KeyPath, value: Any = None) -> None:
        """Drops the places of `value`, which stands at `path`, and of everything in it."""
        for here in paths_of(value, path):
            self.keys.pop(here, None)
            self.values.pop(here, None)


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of a value and of everything in it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from paths_of(child, (*path, name))


def parse_yaml(text: str, source: str, order: int = 0, positions: bool = True) -> Document:
    """Parses one YAML document.

    Args:
        text: the YAML.
        source: the file or flag, as it is to be shown.
        order: rank of this source among others, for sorting problems.
        positions: whether lines and columns mean something to the user (not in a flag).

    Returns:
        A document; what cannot be used (syntax, repeated keys, odd tags) is in its `problems`.
    """

    def place(mark: yaml.Mark | None) -> Place:
        if mark is None or not positions:
            return Place(order, 0, 0, source)
        return Place(order, mark.line + 1, mark.column + 1, source)

    document = Document()
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        message = error.problem or error.context or "not valid YAML"
        document.problems.append(Problem(place(error.problem_mark or error.context_mark), "", message))
        return document
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        at = Place(order, len(before), len(before[-1]) + 1, source) if positions else place(None)
        message = f"the character U+{int(error.character):04X} is not allowed in YAML"
        document.problems.append(Problem(at, "", message))
        return document
    if root is not None:
        document.values[()] = place(root.start_mark)
        document.tree = _Builder(document, place).build(root, ())
    return document


class _Builder:
    """Turns nodes into plain values, noting places and problems in the document."""

    def __init__(self, document: Document, place: Any) -> None:
        self.document = document
        self.place = place

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.values[path] = self.place(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.problem(node, path, f"the tag {node.tag} does not fit here")
        return None

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        if kind in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
            self.problem(node, path, f"a number of {len(node.value):,} characters is too long")
            return None
        try:
            value = scalar(kind, node.value)
        except ValueError:
            self.problem(node, path, f"the tag {node.tag} does not fit here")
            return None
        if type(value) is int and abs(value) > sys.float_info.max:  # as few hexadecimal digits may be
            self.problem(node, path, f"a number beyond {sys.float_info.max:.2g} is too large")
            return None
        return value

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, "a key must be a plain word")
                continue
            key = key_node.value
            here = (*path, key)
            if key in result:
                first = self.document.keys[here]
                where = f" (first at line {first.line})" if first.line else ""
                self.problem(key_node, here, f"repeated key{where}")
                continue
            self.document.keys[here] = self.place(key_node.start_mark)
            result[key] = self.build(value_node, here)
        return result

    def problem(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.document.problems.append(Problem(self.place(node.start_mark), dotted(path), message))


def scalar(kind: str, text: str) -> Any:
    """The value of a scalar whose tag is `kind`.

    Raises:
        ValueError: the text does not fit the tag, or the tag is none of null, bool, int, float, str.
    """
    match kind:
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return {"true": True, "false": False}.get(text.lower(), text)
        case "int":
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        case "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    raise ValueError(kind)


def dotted(path: KeyPath) -> str:
    """`("model", "stages", 0)` as `model.stages[0]`."""
    result = ""
    for part in path:
        result += f"[{part}]" if isinstance(part, int) else f".{part}" if result else part
    return result
