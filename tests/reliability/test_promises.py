"""The pages of promises name tests and commands that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("docs/reliability.md", "docs/hostile-input.md", "tests/README.md")]
FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
TESTS = {name for file in FILES for name in re.findall(r"def (test_\w+)\(", (ROOT / file).read_text("utf-8"))}


def missing(text: str) -> list[str]:
    """What is named between backticks and is not there; `…` stands for the rest of a name, `*` for any file."""
    absent = []
    for name in re.findall(r"`([^`\n]+)`", text):
        if name.startswith("benchmarks/"):
            if not (ROOT / name).is_file():
                absent.append(name)
        elif re.fullmatch(r"(tests/[\w/*]*)?test_[\w*]+\.py", name):
            if not list((ROOT / "tests").rglob(Path(name).name)):
                absent.append(name)
        elif re.fullmatch(r"test_\w+…?|…\w+…", name):
            beginning, anywhere = name.rstrip("…"), name.strip("…")
            found = [
                test
                for test in TESTS
                if (test == name if "…" not in name else anywhere in test)
                and (name.startswith("…") or test.startswith(beginning))
            ]
            if not found:
                absent.append(name)
    return absent


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_a_promise_names_exists(page: Path) -> None:
    assert missing(page.read_text("utf-8")) == []


def test_the_search_would_miss_one() -> None:
    gone = ["test_never_written.py", "test_never_written", "test_never_written…", "benchmarks/gone.py"]
    assert missing(" ".join(f"`{name}`" for name in gone)) == gone
    assert (
        missing("`test_locks.py`, `test_no_clock_decides_anything`, `test_no_clock…`, `metrics.jsonl`") == []
    )
