"""A fingerprint of the scoring code, so that stored numbers are not mistaken for those of the current measures.

It covers evaluation/evaluate.py and all that it imports, directly or indirectly, except modules that compute no
number: those that only show results, read configs, handle files or report errors (`WITHOUT_BEARING`).
"""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

ENTRANCE = "evaluation/evaluate.py"
_SHOWING = "figures", "evaluation/illustrate.py", "evaluation/sheets.py"
_READING_CONFIGS = tuple(
    f"config/{name}.py" for name in ("__init__", "convert", "dump", "load", "problems", "yaml")
)
"""Modules that read config files. A model's card has its config, checked by `config/schema.py`, which does count."""
_HELPING = tuple(
    f"{name}.py" for name in ("errors", "file_names", "files", "model_paths", "os_errors", "progress")
)
WITHOUT_BEARING = (*_SHOWING, *_READING_CONFIGS, *_HELPING)
"""Folders and files that the evaluation imports but that compute no numbers. Whatever is not named here counts, so
that a new module cannot be forgotten."""


@cache
def scoring_fingerprint() -> str:
    """The fingerprint of the code that turns a model and images into numbers.

    A version number to be raised by hand would be forgotten; a needless scoring costs little compared with training.
    """
    return code_fingerprint(scoring_files())


def scoring_files() -> dict[str, Path]:
    """The modules that the numbers depend on, by their path within the package."""
    return {
        place: path
        for place, path in imported_by(ENTRANCE, Path(__file__).parents[1]).items()
        if not any(place == name or place.startswith(f"{name}/") for name in WITHOUT_BEARING)
    }


@cache
def imported_by(entrance: str, package: Path) -> dict[str, Path]:
    """The modules that a module of a package imports, including itself, sorted, by their path within the package.

    Imports count wherever they stand, also within a function or for types alone, and so do imports of imports.

    Args:
        entrance: the module's path within the package.
        package: the package's folder.
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
    """Dotted names of possible modules: in `from a.b import c`, c may or may not be one."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "no relative imports in this house"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _places(name: str, package: Path) -> Iterator[str]:
    """The package's modules that run when a dotted name is imported: its own, and those of the enclosing packages."""
    top, *parts = name.split(".")
    if top == package.name:
        for depth in range(len(parts) + 1):
            place = "/".join(parts[:depth])
            for candidate in (f"{place}/__init__.py".lstrip("/"), f"{place}.py"):
                if (package / candidate).is_file():
                    yield candidate


def code_fingerprint(files: dict[str, Path]) -> str:
    """SHA-256 of the syntax trees of Python files, in which comments, docstrings and layout do not count."""
    digest = sha256()
    for place, path in files.items():
        code = _WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
        digest.update(place.encode())
        digest.update(ast.dump(code).encode())
    return digest.hexdigest()


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes strings that are statements: docstrings of modules, classes, functions and attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node
