"""What the text of a test file truly runs, in contrast to what it only names: commands and benchmarks."""

import ast
from collections.abc import Iterator

HELPER = "civae"
"""Tests' usual name for a function whose arguments are those of a command."""


def commands_invoked(text: str) -> set[str]:
    """First words of the lists that `CliRunner().invoke` is given, as they are or by a name, and of `civae(…)`."""
    nodes = list(ast.walk(ast.parse(text)))
    named: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, set()).update(_first_word_of_list(node.value))
    found: set[str] = set()
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "invoke":
            for given in call.args:
                found |= named.get(given.id, set()) if isinstance(given, ast.Name) else set()
                found.update(_first_word_of_list(given))
        elif isinstance(call.func, ast.Name) and call.func.id == HELPER:
            found.update(_first_word(call.args))
    return found


def benchmarks_invoked(text: str) -> set[str]:
    """Names of the modules in `benchmarks` whose `main` is imported and used, or called by the module's name."""
    nodes = list(ast.walk(ast.parse(text)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            package, *modules = node.module.split(".")
            names = {alias.name for alias in node.names}
            if package == "benchmarks" and modules:
                found |= {modules[0]} if "main" in names & used else set()
            elif package == "benchmarks":
                found |= {name for name in names if f"{name}.main" in called}
    return found


def _first_word_of_list(given: ast.expr) -> Iterator[str]:
    if isinstance(given, ast.List):
        yield from _first_word(given.elts)


def _first_word(given: list[ast.expr]) -> Iterator[str]:
    """The first of these, if it is text."""
    if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str):
        yield given[0].value
