"""What an evaluation's numbers were computed by, so that kept numbers are not taken for those of today's measures."""

import ast
from functools import cache
from hashlib import sha256
from pathlib import Path

_SHOWING = "fingerprint", "illustrate", "measures", "output", "paged", "report", "sheets", "table", "values"
_MAKING = (
    *("benchmark", "config", "data", "engine", "export", "figures", "inference", "penalties", "synthetic"),
    "training",
)
_HELPING = "assignments", "attributes", "errors", "files", "machine", "model_paths", "objective", "progress"
_READING = "locks", "measured", "model_header", "overfitting", "reading"
_ENTRIES = "diagnosis", "inspection", "quickstart"
WITHOUT_BEARING = (
    *_MAKING,
    *(f"{name}.py" for name in (*_HELPING, *_READING, *_ENTRIES)),
    *(f"evaluation/{name}.py" for name in _SHOWING),
)
"""Folders and files of the package that make or show data, models and numbers, but compute none from them. What is
not named counts, so that a new module cannot be forgotten."""


@cache
def scoring_fingerprint() -> str:
    """The fingerprint of the code that turns a model and images into numbers.

    A version to be raised by hand would be forgotten; scoring once more than needed costs little beside training.
    """
    return code_fingerprint(scoring_files())


def scoring_files() -> dict[str, Path]:
    """The modules that the numbers depend on, by their place in the package."""
    package = Path(__file__).parents[1]
    places = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
    return {
        place: path
        for place, path in places.items()
        if not any(place == name or place.startswith(f"{name}/") for name in WITHOUT_BEARING)
    }


def code_fingerprint(files: dict[str, Path]) -> str:
    """SHA-256 of Python files as they are understood: comments and layout do not count."""
    digest = sha256()
    for place, path in files.items():
        digest.update(place.encode())
        digest.update(ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()
