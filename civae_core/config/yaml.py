"""YAML with positions: parses plain values and records where each of them was written.

Scalars follow YAML 1.2's core schema, so `1e-4` is a number and `no` a string; as in Python, `500_000` is a number
too. Repeated keys and aliases are not allowed: a config is a tree.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from civae_core.bounded_yaml import BoundedLoader

KeyPath = tuple[str | int, ...]

_LONGEST_NUMBER = 300  # characters; doubles have at most 309 digits, and parsing takes quadratic time

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
    """Make a loader or dumper class recognise YAML 1.2's scalars."""
    for name, pattern, first in _SCALARS:
        resolver.add_implicit_resolver(_PREFIX + name, re.compile(rf"(?:{pattern})\Z"), list(first))


class _Loader(BoundedLoader):
    """Only composes nodes; this module builds the values, with their places."""


_Loader.yaml_implicit_resolvers = {}  # drop those of YAML 1.1, in which `no` is false
add_core_schema(_Loader)


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written; line and column start at 1, and are 0 outside files."""

    order: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One problem in a config: its place, the key and a message."""

    place: Place | None
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place or ""), self.key, self.message) if part)


@dataclass
class Document:
    """A parsed tree; `keys` and `values` map paths to the places of keys and values."""

    tree: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def adopt(self, path: KeyPath, other: "Document", value: Any) -> None:
        """Copy the places of `value`, found at `path` in another document, and of everything in it."""
        for here in paths_of(value, path):
            for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
                if here in theirs:
                    mine[here] = theirs[here]

    def forget(self, path: KeyPath, value: Any = None) -> None:
        """Drop the places of `value`, found at `path`, and of everything in it."""
        for here in paths_of(value, path):
            self.keys.pop(here, None)
            self.values.pop(here, None)


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of a value and of everything in it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from paths_of(child, (*path, name))


def parse_yaml(text: str, source: str, order: int = 0, positions: bool = True) -> Document:
    """Parse one YAML document.

    Args:
        text: the YAML text.
        source: the file or flag, as shown to the user.
        order: rank of this source among others, for sorting problems.
        positions: whether lines and columns are meaningful to the user (not for a flag).

    Returns:
        The document; its `problems` list whatever cannot be used (syntax errors, repeated keys, unsupported tags).
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
    """Turns nodes into plain values and records places and problems in the document."""

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
        if type(value) is int and abs(value) > sys.float_info.max:  # possible with few hexadecimal digits
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
        ValueError: the text does not fit the tag, or the tag is not one of null, bool, int, float, str.
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
    """A path in dotted form: `("model", "stages", 0)` gives `model.stages[0]`."""
    result = ""
    for part in path:
        result += f"[{part}]" if isinstance(part, int) else f".{part}" if result else part
    return result
