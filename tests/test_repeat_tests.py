"""benchmarks/repeat_tests.py: each repeat has its own order, is a line, is not repeated, and failures are named."""

import json
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from order import shuffled

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import repeat_tests  # noqa: E402

SUITE = """
import os
import pytest

@pytest.fixture
def leaves_badly():
    yield
    assert os.environ["CIVAE_TEST_SEED"] != "3"

def test_passes(): pass
def test_fails_in_the_second(): assert os.environ["CIVAE_TEST_SEED"] != "2"
def test_is_left_badly_in_the_third(leaves_badly): pass
@pytest.mark.skip
def test_is_skipped(): pass
"""


@pytest.fixture
def repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Repeats a suite of four tests up to so many times; exit code and sum."""
    suite, out = tmp_path / "suite", tmp_path / "repeats.jsonl"
    suite.mkdir()
    (suite / "test_four.py").write_text(SUITE)
    (suite / "pytest.ini").write_text("[pytest]\n")
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes longer than these tests
    monkeypatch.setenv("PYTEST_PLUGINS", "_hypothesis_pytestplugin")
    monkeypatch.setattr(repeat_tests, "ROOT", suite)
    monkeypatch.setattr(repeat_tests, "tree", lambda: "a tree")

    def run(times: int) -> tuple[Any, dict[str, Any]]:
        monkeypatch.setattr(
            sys, "argv", ["x", f"--times={times}", f"--out={out}", "--processes=1", str(suite)]
        )
        with pytest.raises(SystemExit) as ended:
            repeat_tests.main()
        said = capsys.readouterr().out
        return ended.value.code, json.loads(said) if said else {}

    run.out = out  # type: ignore[attr-defined]
    return run


def test_repeats_go_on_where_they_were_stopped_and_failures_are_named(repeat: Any) -> None:
    code, found = repeat(1)
    assert (code, found["repeats"], found["tests"], found["failures"]) == (0, 1, 3, {})
    first = repeat.out.read_text()
    repeat.out.write_text(first + '{"repeat": 2, "pas')  # stopped amid a line
    code, found = repeat(3)
    assert code == 1 and (found["repeats"], found["repeats_with_failures"]) == (3, 2)
    assert found["failures"] == {
        "test_four::test_fails_in_the_second": 1,
        "test_four::test_is_left_badly_in_the_third": 1,
    }
    assert repeat.out.read_text().startswith(first)
    lines = [json.loads(line) for line in repeat.out.read_text().splitlines()]
    assert [line["repeat"] for line in lines] == [1, 2, 3]
    assert [[line[state] for state in ("passed", "failed", "skipped")] for line in lines] == [
        [3, 0, 1],
        [2, 1, 1],
        [2, 1, 1],
    ]
    assert found["seconds"]["least"] == min(line["seconds"] for line in lines) > 0
    kept = {path.name: path.read_text() for path in repeat.out.parent.glob("repeats.jsonl.*")}
    assert set(kept) == {"repeats.jsonl.2.txt", "repeats.jsonl.3.txt"}
    assert 'assert os.environ["CIVAE_TEST_SEED"] != "2"' in kept["repeats.jsonl.2.txt"]


def test_what_stands_there_of_another_tree_is_not_added_to(
    repeat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeat.out.write_text(json.dumps({"repeat": 1, "tree": "another", "failures": [], "seconds": 1}) + "\n")
    before = repeat.out.read_text()
    assert repeat(2)[0] == 2 and repeat.out.read_text() == before


def test_a_suite_that_cannot_run_is_a_failure(repeat: Any) -> None:
    (repeat.out.parent / "suite" / "test_four.py").unlink()
    code, found = repeat(1)
    assert code == 1 and next(iter(found["failures"])).startswith("pytest ended with 5")


@dataclass(frozen=True)
class Item:
    path: str
    name: int


def test_an_order_is_drawn_by_its_seed_and_keeps_files_together() -> None:
    tests = [Item(file, number) for file in "abcdef" for number in range(5)]
    orders = [shuffled(tests, str(seed)) for seed in range(3)]
    assert shuffled(tests, "0") == orders[0]
    for order in orders:
        assert order != tests and sorted(order, key=tests.index) == tests
        files = [test.path for test in order]
        assert sum(one != other for one, other in pairwise(files)) == 5
    assert len({tuple(order) for order in orders}) == 3
