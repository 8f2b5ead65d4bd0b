"""Killed at random moments, prepare-data and training leave in the end what an undisturbed run leaves."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import run_script

sys.path.append(str(Path(__file__).parents[2]))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")


def stress(folder: Path, *arguments: str) -> tuple[int | None, dict[str, Any]]:
    from benchmarks.stress import main

    said = folder / "said.json"
    code = run_script(main, ["--json", "--work", folder / "work", *arguments], said)
    return code, json.loads(said.read_text(encoding="utf-8"))


def test_five_rounds_of_kills_leave_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    code, found = stress(tmp_path, "--rounds", "5", "--seed", "8")
    assert (code, found["failures"]) == (0, [])
    assert found["rounds"] == 5
    # Kills at a moment may come after the end on a busy machine; those before a change of files do not.
    assert found["where"]["prepare: before a change of files"] >= 1
    assert found["where"]["train: before a change of files amid a checkpoint"] >= 1


# Seeds whose kills fall before changes of files, so that they fall in the same place on every machine.
@pytest.mark.parametrize(("job", "safeguard", "seed"), [("train", "metrics", "4"), ("prepare", "files", "1")])
def test_the_comparison_notices_a_safeguard_that_is_missing(
    tmp_path: Path, job: str, safeguard: str, seed: str
) -> None:
    code, found = stress(tmp_path, "--rounds", "2", "--seed", seed, "--only", job, "--spoil", safeguard)
    assert code == 1 and found["failures"]
