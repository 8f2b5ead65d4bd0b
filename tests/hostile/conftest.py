"""A stranger's run, and the tally of a long round, which goes to the file that $CIVAE_FUZZ_TALLY names."""

import json
import os
import shutil
from pathlib import Path

import pytest
from survival import tried


@pytest.fixture(scope="module")
def measured_run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose evaluation and metrics may be spoilt."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "run", symlinks=True))


def pytest_sessionfinish() -> None:
    file = os.environ.get("CIVAE_FUZZ_TALLY")
    if file:
        Path(file).write_text(json.dumps(tried), encoding="utf-8")
