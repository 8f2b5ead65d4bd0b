"""Names of files that several parts share are spelled in one place."""

import ast
from pathlib import Path

from civae_core import file_names

PACKAGES = [Path(file_names.__file__).parent, Path(file_names.__file__).parents[1] / "civae_cli"]


def test_no_other_module_spells_a_shared_name_again() -> None:
    names = {value for key, value in vars(file_names).items() if key.isupper() and isinstance(value, str)}
    assert {"dataset.yml", ".partial", "evaluation.json"} <= names
    texts = {file: file.read_text(encoding="utf-8") for package in PACKAGES for file in package.rglob("*.py")}
    spelled = [
        (file.name, node.value)
        for file, text in texts.items()
        if any(name in text for name in names)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert sorted(spelled) == sorted(("file_names.py", name) for name in names)
