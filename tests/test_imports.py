"""CONTRIBUTING's table of folders is true: each imports only what its row allows, and none from below."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `civae_core/(\w+)(?:/|\.py)` \|.*\| ([^|]+) \|$", TABLE, flags=re.MULTILINE))
"""What each folder or file may import, in the words of the table and its order, which goes upwards."""


def imported(file: Path) -> Iterator[str]:
    """Modules that a file names in its imports, wherever they stand in it, as `model.stored`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            package, _, module = name.partition(".")
            assert package != "civae_cli", f"{file}: imports the command line"
            if package == "civae_core":
                yield module


def is_allowed(place: str, module: str) -> bool:
    """Whether the row of `place` has this module, and the module's own row stands above it."""
    target, order = module.partition(".")[0], list(ROWS)
    if target not in ROWS or target == place:
        return True
    if place not in ROWS or order.index(target) > order.index(place):
        return False
    named = [name.replace("/", ".") for name in re.findall(r"`([\w/]+)`", ROWS[place])]
    return ROWS[place] == "all above" or any(f"{module}.".startswith(f"{name}.") for name in named)


def test_each_folder_imports_what_its_row_allows() -> None:
    core = ROOT / "civae_core"
    files = [(file.relative_to(core).with_suffix("").parts[0], file) for file in core.rglob("*.py")]
    found = [(place, module, file) for place, file in files for module in imported(file)]
    assert [(str(file), module) for place, module, file in found if not is_allowed(place, module)] == []
    assert {path.name for path in core.iterdir() if (path / "__init__.py").exists()} <= ROWS.keys()


def test_an_import_that_no_row_allows_is_seen() -> None:
    assert is_allowed("training", "model.stored") and is_allowed("engine", "model.familiar.describe")
    assert not is_allowed("engine", "model.stored"), "more than its row names"
    assert not is_allowed("model", "training.loop"), "from below"
    assert not is_allowed("errors", "data"), "whatever no row names is below all rows"
