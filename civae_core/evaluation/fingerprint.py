"""What an evaluation's numbers were computed by, so that kept numbers are not taken for those of today's measures.

evaluation/evaluate.py and all it imports, directly or not  −  what only shows, names or refuses
"""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

ENTRANCE = "evaluation/evaluate.py"
_SHOWING = "figures", "evaluation/illustrate.py", "evaluation/sheets.py", "inference/png.py"
_READING_CONFIGS = tuple(
    f"config/{name}.py" for name in ("__init__", "convert", "dump", "load", "problems", "yaml")
)
"""A model's card brings its config as `config/schema.py` checks it, which counts."""
_HELPING = tuple(f"{name}.py" for name in ("errors", "files", "model_paths", "os_errors", "progress"))
WITHOUT_BEARING = (*_SHOWING, *_READING_CONFIGS, *_HELPING)
"""Folders and files that evaluating imports, and that compute no number. What is not named counts, so that a new
module cannot be forgotten."""


@cache
def scoring_fingerprint() -> str:
    """The fingerprint of the code that turns a model and images into numbers.

    A version to be raised by hand would be forgotten; scoring once more than needed costs little beside training.
    """
    return code_fingerprint(scoring_files())


def scoring_files() -> dict[str, Path]:
    """The modules that the numbers depend on, by their place in the package."""
    return {
        place: path
        for place, path in imported_by(ENTRANCE, Path(__file__).parents[1]).items()
        if not any(place == name or place.startswith(f"{name}/") for name in WITHOUT_BEARING)
    }


@cache
def imported_by(entrance: str, package: Path) -> dict[str, Path]:
    """The modules of a package that one of them imports, itself included, by their place in the package, in order.

    Whatever its code names counts: also what is imported within a function, or for types alone.

    Args:
        entrance: the module's place.
        package: its folder.
    """
    found: set[str] = set()
    waiting = [entrance]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [
                imported
                for name in _imports(ast.parse((package / place).read_text(encoding="utf-8")))
                for imported in _places(name, package)
            ]
    return {place: package / place for place in sorted(found)}


def _imports(code: ast.Module) -> Iterator[str]:
    """Dotted names of what might be modules: in `from a.b import c`, c may be one or not."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "no relative imports in this house"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _places(name: str, package: Path) -> Iterator[str]:
    """The modules of the package that run when a dotted name is imported: it, and the packages that it lies in."""
    top, *parts = name.split(".")
    if top == package.name:
        for depth in range(len(parts) + 1):
            place = "/".join(parts[:depth])
            for candidate in (f"{place}/__init__.py".lstrip("/"), f"{place}.py"):
                if (package / candidate).is_file():
                    yield candidate


def code_fingerprint(files: dict[str, Path]) -> str:
    """SHA-256 of Python files as they are understood: comments and layout do not count."""
    digest = sha256()
    for place, path in files.items():
        digest.update(place.encode())
        digest.update(ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()
