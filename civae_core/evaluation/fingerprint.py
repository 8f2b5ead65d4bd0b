"""What an evaluation's numbers were computed by, so that kept numbers are not taken for those of today's measures."""

import ast
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable

SHOWING = frozenset(
    {"fingerprint", "illustrate", "measures", "output", "paged", "report", "sheets", "table", "values"}
)
"""Modules of the evaluation that show numbers and compute none."""
BESIDE = ("counterfactual.py", "ranking.py")
"""What the evaluation computes with, outside its own folder."""


@cache
def scoring_fingerprint() -> str:
    """The fingerprint of the code that turns a model and images into numbers.

    A version to be raised by hand would be forgotten; scoring once more than needed costs little beside training.
    """
    return code_fingerprint(scoring_files())


def scoring_files() -> list[Traversable]:
    """The modules that the numbers depend on, by name."""
    package = resources.files("civae_core")
    evaluation = [
        file
        for file in package.joinpath("evaluation").iterdir()
        if file.name.endswith(".py") and file.name.removesuffix(".py") not in SHOWING
    ]
    return sorted([*evaluation, *map(package.joinpath, BESIDE)], key=lambda file: file.name)


def code_fingerprint(files: Iterable[Traversable]) -> str:
    """SHA-256 of Python files as they are understood: comments and layout do not count."""
    digest = sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()
