"""Loads one checked config from files and flags; precedence: defaults < files < --set < other flags."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from civae_core.bounded_yaml import DEEPEST
from civae_core.config.problems import MOST_PROBLEMS, validate
from civae_core.config.schema import Config
from civae_core.config.yaml import Document, KeyPath, Place, Problem, parse_yaml, paths_of
from civae_core.errors import UsageError
from civae_core.reading import read_at_most

# Top-level keys that only the original project's config.yml has.
ORIGINAL_KEYS = frozenset(
    {"norm_type", "nepoch", "ch_multi", "num_res_blocks", "latent_channels", "kl_scale", "model_labels"}
)


MOST_BYTES = 2**18
"""Maximum size of a config file, hundreds of times that of a long one; bounds the time spent on parsing."""


class ConfigError(UsageError):
    """Raised for an invalid config; `problems` holds every problem found, one line each."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(str(problem) for problem in problems)
        lines = list(self.problems[: 2 * MOST_PROBLEMS])
        if len(problems) > len(lines):
            lines.append("…")
        if len(lines) > 1:
            lines.insert(0, f"{len(self.problems)} problems in the config")
        super().__init__("\n".join(lines), hint=hint)


def load_config(
    files: Sequence[Path], sets: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> Config:
    """Load, merge and check a config.

    Sections are merged key by key; lists are replaced as a whole. A relative `data.path` is relative to the current
    folder, not to the file that contains it.

    Args:
        files: YAML files; later ones take precedence.
        sets: `section.key=value` as given to --set; the value is YAML.
        overrides: values of dedicated flags by dotted key; None means that the flag was not given.

    Raises:
        ConfigError: the config is invalid; lists every problem found with its file, line and column.
    """
    sources = [read_file(Path(file), order) for order, file in enumerate(files)]
    sources += [parse_set(text, len(files) + order) for order, text in enumerate(sets)]
    merged = merge_all(sources)
    for key, value in (overrides or {}).items():
        if value is not None:
            merge(merged, nested(tuple(key.split(".")), value, Place(len(sources), 0, 0, "command line")))

    config, problems = validate(merged)
    problems += merged.problems
    if problems or config is None:
        raise ConfigError(in_reading_order(problems), hint=_hint(problems))
    return config


def read_file(path: Path, order: int = 0) -> Document:
    """Parse one file; if that is impossible, the document's tree is None and its only problem gives the reason."""

    def unusable(message: str, line: int = 0, column: int = 0) -> Document:
        return Document(problems=[Problem(Place(order, line, column, str(path)), "", message)])

    try:
        data = read_at_most(path, MOST_BYTES, regular=False)
    except OSError as error:
        return unusable(f"cannot read it: {error.strerror or error}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].split(b"\n")
        message = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        return unusable(message, len(before), len(before[-1].decode("utf-8-sig", "replace")) + 1)
    document = parse_yaml(text, str(path), order)
    if document.tree is None and not document.problems:
        document.tree = {}
    if document.tree is not None and not isinstance(document.tree, dict):
        place = document.values[()]
        return unusable(
            "the top level should be sections such as `data:` and `train:`", place.line, place.column
        )
    return document


def merge_all(sources: Sequence[Document]) -> Document:
    """Merge the sources, later ones taking precedence, and collect their problems.

    Raises:
        ConfigError: some sources cannot be parsed; gives the reason for each.
    """
    unusable = [p for source in sources for p in source.problems if source.tree is None]
    if unusable:
        raise ConfigError(unusable, hint=_syntax_hint(unusable))
    merged = Document(tree={})
    for source in sources:
        merge(merged, source)
        merged.problems += source.problems
    return merged


def merge(base: Document, over: Document, path: KeyPath = ()) -> None:
    """Merge `over` into `base` in place: mappings are merged, everything else is replaced."""
    old, new = base.tree, over.tree
    for part in path:
        old, new = old[part], new[part]
    for name, value in new.items():
        here = (*path, name)
        if isinstance(value, dict) and isinstance(old.get(name), dict):
            base.keys[here], base.values[here] = over.keys[here], over.values[here]
            merge(base, over, here)
            continue
        if name in old:
            base.forget(here, old[name])
        old[name] = value
        base.adopt(here, over, value)


def parse_set(text: str, order: int) -> Document:
    """Parse a --set: `train.lr=1e-4` gives the tree {"train": {"lr": 0.0001}}."""
    source = f"--set {text}"
    place = Place(order, 0, 0, source)
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        return Document(problems=[Problem(place, "", "needs the form section.key=value")])
    if len(path) > DEEPEST:
        return Document(problems=[Problem(place, "", "nested too deeply")])
    document = parse_yaml(value, source, order, positions=False)
    if document.problems and document.tree is None:
        return document
    made = nested(path, document.tree, place)
    made.problems = [Problem(p.place, f"{name}.{p.key}", p.message) for p in document.problems]
    return made


def nested(path: tuple[str, ...], value: Any, place: Place) -> Document:
    """A document with one value at `path`; `place` is the place of every key and value in it."""
    document = Document(tree=value)
    for part in reversed(path):
        document.tree = {part: document.tree}
    document.values = dict.fromkeys(paths_of(document.tree), place)
    document.keys = {here: place for here in document.values if here and isinstance(here[-1], str)}
    return document


def in_reading_order(problems: Sequence[Problem]) -> list[Problem]:
    """Sort problems by source, line and column; those without a place come last."""
    last = Place(1_000_000, 0, 0, "")
    return sorted(problems, key=lambda problem: problem.place or last)


def _hint(problems: Sequence[Problem]) -> str:
    if any(problem.key in ORIGINAL_KEYS for problem in problems):
        return "this looks like the original project's config; `civae config convert FILE` translates it"
    missing = [problem.key for problem in problems if problem.message.startswith("missing")]
    if missing:
        return f"give it in a file (--config FILE) or as --set {missing[0]}=…"
    return "`civae config init` prints every key with its meaning and default"


def _syntax_hint(problems: Sequence[Problem]) -> str:
    """A hint for files that cannot be parsed."""
    if any("cannot read" in problem.message for problem in problems):
        return "`civae config init > train.yml` writes a commented config to start from"
    if any("\\t" in problem.message for problem in problems):
        return "indent with spaces; YAML allows no tabs there"
    return "check the YAML there: `key: value` pairs, indented with spaces, quotes closed"
