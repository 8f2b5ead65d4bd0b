"""The worker pool: results, errors, and workers that die."""

import operator
import os

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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_uses_one_core(workers: int) -> None:
    before = torch.get_num_threads()
    assert set(run_jobs(threads, None, [0, 1], workers)) == {1}
    assert torch.get_num_threads() == before
