"""A pool of worker processes with a bounded number of jobs in flight, whose workers do not outlive their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from civae_core.errors import CivaeError

Job = TypeVar("Job")
Result = TypeVar("Result")
State = TypeVar("State")

_state: Any = None  # set once in each worker, so that large arguments are not sent with every job


def run_jobs(
    function: Callable[[State, Job], Result],
    state: State,
    jobs: Sequence[Job],
    workers: int,
    preload: Sequence[str] = (),
) -> Iterator[Result]:
    """Yield `function(state, job)` for every job as it finishes, in no particular order.

    With one worker, or one job, everything runs in this process. `function` must be importable by name. The modules
    in `preload`, which `state` needs, are imported once for all workers on systems that have a fork server.

    Raises:
        CivaeError: a worker process died.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in jobs:
            with _one_thread():
                result = function(state, job)
            yield result
        return
    # Forking a process that has run torch's threads is unsafe; a fork server starts clean.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__, function.__module__, *preload])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(state,))
    waiting: Iterator[Job] = iter(jobs)
    running: set[Future[Result]] = set()
    try:
        while True:
            for job in islice(waiting, 2 * workers - len(running)):
                running.add(pool.submit(_run, function, job))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise CivaeError(
            "a worker process died", hint=f"it may have run out of memory: lower --workers {workers}"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep a worker, here or in a pool, on one core: limits torch to one thread, without importing it for that."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run(function: Callable[[State, Job], Result], job: Job) -> Result:
    with _one_thread():
        return function(_state, job)


def _start_worker(state: Any) -> None:
    global _state
    _state = state
    # Ctrl-C reaches the whole process group; the parent lets running jobs finish and keeps their results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent(lambda: os._exit(1))


def leave_with_parent(leave: Callable[[], object]) -> None:
    """Call `leave` in this process as soon as its parent is gone, however the parent ended."""
    parent = multiprocessing.parent_process()

    def wait_for_parent() -> None:
        if parent is not None:
            parent.join()
            leave()

    threading.Thread(target=wait_for_parent, daemon=True).start()
