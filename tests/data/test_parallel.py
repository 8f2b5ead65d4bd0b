"""The worker pool: results, errors, and workers that die."""

import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from civae_core.data.parallel import run_jobs
from civae_core.errors import CivaeError, DataError


def fail(state: str, job: int) -> int:
    raise DataError(f"{state} {job}", hint="try again")


def die(state: str, job: int) -> int:
    os._exit(9)


def threads(state: None, job: int) -> int:
    return torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(run_jobs(operator.add, 10, range(9), workers)) == list(range(10, 19))


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive_with_their_hint(workers: int) -> None:
    with pytest.raises(DataError, match=r"chunk (0|1)") as caught:
        list(run_jobs(fail, "chunk", [0, 1], workers))
    assert caught.value.hint == "try again"


def test_a_dead_worker_is_an_error_not_a_wait() -> None:
    with pytest.raises(CivaeError, match="a worker process died"):
        list(run_jobs(die, "", [0, 1], 2))


FILES_NEED_NO_TORCH = """
import os, sys
from pathlib import Path
from civae_core.data.images import Preprocessing
from civae_core.data.pack import _Jobs, Layout
from civae_core.data.parallel import run_jobs
from civae_core.data.sources.base import FileReader
from civae_core.data.sources.files import FolderFiles
from test_parallel_jobs import imported

if __name__ == "__main__":
    preprocessing = Preprocessing(size=8)
    reader = FileReader(FolderFiles(Path()), ["a.jpg"], preprocessing)
    jobs = _Jobs(reader, Layout(2, 192), Path())
    found = list(run_jobs(imported, jobs, [0, 1], 2, [FileReader.__module__]))
    assert len(found) == 2 and all(process != os.getpid() for process, _ in found)
    print(any(has_torch for _, has_torch in found))
"""
JOB = """
import os, sys

def imported(state, job):
    return os.getpid(), "torch" in sys.modules
"""


@pytest.mark.parametrize("needed", [False, True])
def test_processes_that_decode_files_do_not_wait_for_torch(needed: bool, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FILES_NEED_NO_TORCH)
    (tmp_path / "test_parallel_jobs.py").write_text(JOB + "import torch\n" * needed)
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (run.stdout.strip(), run.returncode) == (str(needed), 0), run.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_uses_one_core(workers: int) -> None:
    before = torch.get_num_threads()
    assert set(run_jobs(threads, None, [0, 1], workers)) == {1}
    assert torch.get_num_threads() == before
