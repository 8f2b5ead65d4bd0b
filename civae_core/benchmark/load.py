"""Turn a benchmark file into one checked config per method, reporting every problem with its place in the file.

The settings that define an objective (BASELINE_DEFAULTS: β, σ, prior and weights) belong to the method. A method
whose objective differs from the base's takes none of them from the base, only those that it states itself. Everything
else is shared: the question, the network, the data, the budget and the optimiser.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from civae_core.attributes import nearest
from civae_core.benchmark.schema import DEFAULT_METHODS, BenchmarkFile, FacesConfig
from civae_core.config.load import (
    ConfigError,
    in_reading_order,
    merge,
    merge_all,
    nested,
    parse_set,
    read_file,
)
from civae_core.config.problems import validate, validate_as
from civae_core.config.schema import BASELINE_DEFAULTS, Config
from civae_core.config.yaml import Document, KeyPath, Place, Problem, dotted
from civae_core.synthetic import ATTRIBUTES, IN_TWO_CLASSES, ROLES, roots_of

RESERVED = ("copy", "truth")
"""Names of the references that every evaluation adds by itself."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_ROLES = ("treatment", "covariates", "descendants")
_SHARED = {
    ("data", "path"): "all methods share one data set",
    ("train", "seed"): "list the seeds in `seeds`",
    **{("data", role): "all methods answer one question" for role in _ROLES},
}


@dataclass(frozen=True)
class Benchmark:
    """A checked benchmark. Its configs' `data.path` is that of the given data, or a placeholder if faces are made."""

    methods: dict[str, Config]
    changes: dict[str, dict[str, Any]]
    """What each method changes in the base."""
    seeds: tuple[int, ...]
    faces: FacesConfig | None


def load_benchmark(file: Path, sets: Sequence[str] = ()) -> Benchmark:
    """Read a benchmark file, or a config of `civae train`, which becomes the base of the default methods.

    Args:
        file: a YAML file.
        sets: changes such as `base.train.images=…`, as given to --set; the values are YAML.

    Raises:
        ConfigError: lists every problem found, each with its file, line and column.
    """
    sources = [_with_base(read_file(file), file)]
    sources += [parse_set(text, 2 + order) for order, text in enumerate(sets)]
    merged = merge_all(sources)
    checked, problems = validate_as(BenchmarkFile, merged)
    problems += merged.problems
    if checked is None or problems:
        raise ConfigError(in_reading_order(problems), hint=_HINT)
    configs, problems = _method_configs(merged, checked)
    if problems:
        raise ConfigError(in_reading_order(problems), hint=_HINT)
    seeds = checked.seeds if checked.seeds is not None else [next(iter(configs.values())).train.seed]
    return Benchmark(configs, _changes(checked), tuple(dict.fromkeys(seeds)), checked.faces)


_HINT = "see configs/benchmark.yml for the form; `base` and the methods take the keys of `civae config init`"


def _with_base(document: Document, file: Path) -> Document:
    """The document with its base: a plain training config becomes the base, a file's name its content."""
    tree = document.tree
    if not isinstance(tree, dict):
        return document
    if "base" not in tree and "data" in tree:
        wrapped = Document({"base": tree}, problems=document.problems)
        for ours, theirs in ((wrapped.keys, document.keys), (wrapped.values, document.values)):
            ours.update({("base", *path): place for path, place in theirs.items()})
        wrapped.keys[("base",)] = wrapped.values[("base",)]
        return wrapped
    if isinstance(tree.get("base"), str):
        base = read_file(file.parent / tree["base"], order=1)
        if base.tree is None:
            return base
        named = document.keys[("base",)]
        document.forget(("base",))
        tree["base"] = base.tree
        document.keys[("base",)] = named
        for ours, theirs in ((document.keys, base.keys), (document.values, base.values)):
            ours.update({("base", *path): place for path, place in theirs.items()})
        document.problems += base.problems
    return document


def _changes(checked: BenchmarkFile) -> dict[str, dict[str, Any]]:
    return DEFAULT_METHODS if checked.methods is None else checked.methods


def _method_configs(merged: Document, checked: BenchmarkFile) -> tuple[dict[str, Config], list[Problem]]:
    """Each method's config, and the problems of base and methods, each listed once."""
    base = _below(merged, ("base",))
    found: dict[tuple[Place | None, str], Problem] = {}

    def report(problem: Problem) -> None:
        found.setdefault((problem.place, problem.message), problem)

    if checked.faces is not None:
        if "path" in _section(base.tree, "data"):
            message = "cannot be combined with `faces`, which the benchmark makes itself"
            report(Problem(base.keys[("data", "path")], "base.data.path", message))
        _use_faces(base)
    configs: dict[str, Config] = {}
    for name, values in _changes(checked).items():
        here = ("methods", name)
        for problem in _name_problems(name, merged.keys.get(here)):
            report(problem)
        changes = (
            _below(merged, here)
            if checked.methods is not None
            else nested((), copy.deepcopy(values), Place(1_000, 0, 0, "default methods"))
        )
        for path, why in _SHARED.items():
            if path in changes.keys:
                report(Problem(changes.keys[path], dotted((*here, *path)), f"cannot differ by method: {why}"))
        document = _method_document(base, changes)
        config, problems = validate(document)
        if checked.faces is not None:
            problems += _roles_beyond_faces(document)
        own = {*changes.keys.values(), *changes.values.values()}
        for problem in problems:
            prefix = here if problem.place in own else ("base",)
            key = ".".join(filter(None, (dotted(prefix), problem.key)))
            report(Problem(problem.place, key, problem.message))
        if config is not None:
            configs[name] = config
    if checked.methods is not None and not checked.methods:
        report(Problem(merged.keys.get(("methods",)), "methods", "names no method"))
    return configs, list(found.values())


def _method_document(base: Document, changes: Document) -> Document:
    """The base with a method's changes merged in; if the objective changes, without the settings that define one."""
    document = _below(base, ())
    theirs = base.tree.get("objective", "intact")
    ours = changes.tree.get("objective", theirs)
    if ours != theirs:
        for objective in (theirs, ours):
            for section, defaults in BASELINE_DEFAULTS.get(str(objective), {}).items():
                for key in defaults:
                    if isinstance(document.tree.get(section), dict) and key in document.tree[section]:
                        del document.tree[section][key]
                        document.forget((section, key))
    merge(document, changes)
    return document


def _use_faces(base: Document) -> None:
    """Give the base a placeholder for the faces' folder and, if it states no roles, those of the faces."""
    data = base.tree.setdefault("data", {})
    if not isinstance(data, dict):
        return
    if not data.keys() & set(_ROLES):
        data["treatment"] = [a.name for a in ROLES.treatments]
        data["covariates"] = [a.name for a in ROLES.covariates]
        data["descendants"] = [a.name for a in ROLES.descendants]
    data["path"] = "faces"


def _roles_beyond_faces(document: Document) -> list[Problem]:
    """Problems: attributes that the built-in faces lack, treatments that their process cannot set or cannot flip."""
    problems: list[Problem] = []
    for role in _ROLES:
        stated = _section(document.tree, "data").get(role)
        for order, name in enumerate(stated if isinstance(stated, list) else [stated]):
            message = _beyond_faces(name, role, order) if isinstance(name, str) else None
            if message is not None:
                path = ("data", role)
                place = document.values.get((*path, order)) or document.values.get(path)
                problems.append(Problem(place, dotted(path), message))
    return problems


def _beyond_faces(name: str, role: str, order: int) -> str | None:
    kinds = {attribute.name: attribute.kind for attribute in roots_of(IN_TWO_CLASSES)}
    known = [attribute.name for attribute in ATTRIBUTES]
    if name not in known:
        near = nearest(name, known)
        question = f" (did you mean {near}?)" if near else ""
        return f"unknown attribute {name!r}{question}; the faces have {', '.join(known)}"
    if role != "treatment":
        return None
    if name not in kinds:
        return f"{name} follows from other attributes, so it cannot be set; choose one of {', '.join(kinds)}"
    if order == 0 and kinds[name] == "continuous":
        binary = ", ".join(root for root, kind in kinds.items() if kind == "binary")
        return f"{name} is continuous, but the truth is that of the first treatment flipped; choose one of {binary}"
    return None


def _name_problems(name: str, place: Place | None) -> list[Problem]:
    key = f"methods.{name}"
    if name in RESERVED:
        return [Problem(place, key, "the name is reserved for what every evaluation adds by itself")]
    if not _NAME.fullmatch(name):
        message = "names a folder, so only letters, digits and . _ + - are allowed"
        return [Problem(place, key, message)]
    return []


def _below(document: Document, path: KeyPath) -> Document:
    """A copy of the part of a document below `path`, with its places in the file."""
    tree: Any = document.tree
    for part in path:
        tree = tree[part]
    cut = len(path)

    def places(known: Mapping[KeyPath, Place]) -> dict[KeyPath, Place]:
        return {there[cut:]: place for there, place in known.items() if there[:cut] == path}

    return Document(copy.deepcopy(tree), places(document.keys), places(document.values))


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, dict) else {}
