"""Strategies that make hostile bytes and values, most of them near-misses of valid ones."""

import json
from typing import Any

from hypothesis import strategies as st

# Training flushes subnormal numbers to zero, in this process too, so none are drawn.
NUMBERS = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "-1",
            "0.5",
            "nan",
            "inf",
            "-Infinity",
            "1e39",
            "1e400",
            "-1e309",
            "0x1F",
            "1_000",
            "٣",
            "--1",
        ]
    ),
    st.integers().map(str),
    st.floats(allow_subnormal=False).map(repr),
    st.integers(min_value=10**320, max_value=10**330).map(str),
    st.integers(min_value=1, max_value=6000).map(lambda digits: "7" * digits),
)
"""Numbers as text, some of which are not numbers."""

NASTY = st.sampled_from(
    [
        "", " ", "\t", "\0", "\x1b[31m", "\ufeff", "\u202e", "é", "e\u0301", "\U0001f600", "..", "../../etc/passwd",
        "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\x", "~root", "CON", "a b",
        "<script>alert(1)</script>", "{{7*7}}", "$x^$", "${HOME}", "%s%n", "'; --", '"', "=1+1",
        "!!python/object/apply:os.system [true]", "a" * 300,
        "\r", "\r\n", ".", "./a.jpg", "a//b.jpg", "A.JPG", "a.jpg",
    ]
)  # fmt: skip
WORDS = st.one_of(
    NASTY, st.text(max_size=12), st.sampled_from(["Young", "Male", "train", "file_name", "split"])
)


def json_values(*, deep: bool = True) -> st.SearchStrategy[Any]:
    """Any JSON value, and what Python's reader also accepts: NaN, infinities, huge integers, lone surrogates."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, -(2**63), 2**64, 1e308, float("inf"), float("nan"), -0.0, "\ud800"]),
        st.floats(allow_subnormal=False),
        WORDS,
    )
    if not deep:
        return leaves
    return st.recursive(
        leaves, lambda c: st.lists(c, max_size=3) | st.dictionaries(WORDS, c, max_size=3), max_leaves=8
    )


@st.composite
def replaced(draw: st.DrawFn, tree: Any) -> Any:
    """A JSON tree with one to three of its parts replaced, removed or added."""
    made = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        paths = _paths(made)
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        parent = made
        for part in path[:-1]:
            parent = parent[part]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "replace":
            parent[path[-1]] = draw(json_values())
        elif action == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(WORDS)] = draw(json_values())
        else:
            parent.append(draw(json_values()))
    return made


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [path] if path else []
    for name, child in items:
        found += _paths(child, (*path, name))
    return found


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes with a few of them changed, cut, inserted or doubled; near the start as often as anywhere."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        near = draw(st.booleans())
        place = draw(st.integers(0, min(len(data), 64) - 1 if near else len(data) - 1))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64, 1024]))
        match draw(st.sampled_from(["set", "bits", "cut", "insert", "end", "double", "number"])):
            case "set":
                data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            case "bits":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place : place + length]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=length))
            case "end":
                del data[place:]
            case "double":
                data[place:place] = data[place : place + length]
            case "number":
                order = draw(st.sampled_from(["little", "big"]))
                width = draw(st.sampled_from([2, 4, 8]))
                number = draw(st.sampled_from([0, 1, 2**15, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)]))
                data[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
    return bytes(data)
