"""The fingerprint of the scoring code: what it covers, and what changes it."""

from pathlib import Path

import pytest

import civae_core
from civae_core.evaluation import fingerprint
from civae_core.evaluation.fingerprint import (
    ENTRANCE,
    WITHOUT_BEARING,
    code_fingerprint,
    imported_by,
    scoring_files,
)


def test_a_change_of_code_counts_and_one_of_comments_or_docstrings_does_not(tmp_path: Path) -> None:
    file = tmp_path / "measure.py"

    def found(text: str, place: str = "evaluation/measure.py") -> str:
        file.write_text(text, encoding="utf-8")
        return code_fingerprint({place: file})

    first = found("def error(a, b):\n    return abs(a - b)\n")
    assert found("# An error.\ndef error(a,  b):\n    return abs(a-b)  # never negative\n") == first
    told = '"""Measures."""\n\ndef error(a, b):\n    """An error, never negative."""\n    return abs(a - b)\n'
    assert found(told) == first
    assert found("def error(a, b):\n    return 'abs(a - b)'\n") != first
    squared = "def error(a, b):\n    return (a - b) ** 2\n"
    assert len({first, found(squared), found(squared, "evaluation/renamed.py")}) == 3


def test_it_covers_all_that_computes_numbers_and_nothing_that_evaluating_does_not_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = scoring_files()
    computing = (
        "evaluation/tally.py",
        "evaluation/leak.py",
        "model/decoder.py",
        "counterfactual.py",
        "ranking.py",
    )
    deciding = ("attributes.py", "config/schema.py", "data/labelled.py", "inference/plausible.py")
    assert {*computing, *deciding, "yardstick/quality.py", "balance/diagnostics.py"} <= set(files)
    elsewhere = (
        "serve",
        "align",
        "native",
        "population",
        "engine",
        "export",
        "benchmark",
        "penalties",
        "figures",
    )
    assert [place for place in files if place.startswith(elsewhere)] == []
    assert not {"evaluation/report.py", "training/loop.py", "errors.py"} & set(files)
    monkeypatch.setattr(fingerprint, "code_fingerprint", list)  # reading them all takes a second
    assert fingerprint.scoring_fingerprint.__wrapped__() == list(files)


def test_only_what_is_named_is_left_out_and_no_name_is_left_over() -> None:
    imported = imported_by(ENTRANCE, Path(civae_core.__file__).parent)
    left_out = set(imported) - set(scoring_files())
    by_name = {
        name: {place for place in left_out if place == name or place.startswith(f"{name}/")}
        for name in WITHOUT_BEARING
    }
    assert [name for name, places in by_name.items() if not places] == []
    assert left_out == set().union(*by_name.values())


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    texts = {
        "house/__init__.py": "",
        "house/door.py": "from house import hall\nimport house.cellar.wine\nimport numpy\n",
        "house/hall.py": "def go():\n    from house.attic.box import Thing\n    return Thing\n",
        "house/attic/__init__.py": "from house.window import light\n",
        "house/attic/box.py": "class Thing:\n    pass\n",
        "house/window.py": "import house.door\nlight = 1\n",
        "house/cellar/__init__.py": "",
        "house/cellar/wine.py": "",
        "house/cellar/rats.py": "",
        "house/shed.py": "import house.hall\n",
    }
    for place, text in texts.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, encoding="utf-8")
    found = imported_by("door.py", tmp_path / "house")
    assert set(found) == {place.removeprefix("house/") for place in texts} - {"cellar/rats.py", "shed.py"}
    assert found["attic/box.py"] == tmp_path / "house/attic/box.py"
