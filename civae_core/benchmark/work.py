"""Run cells, in this process or in several; an exception in one cell does not affect the others."""

import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnProcess

import torch

from civae_core.benchmark.cells import Cell
from civae_core.benchmark.messages import Terminal, speak_as, terminal_here
from civae_core.data.parallel import leave_with_parent
from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError
from civae_core.machine import available_cores
from civae_core.progress import set_quiet
from civae_core.training.stopping import stop_on_signals, stopped

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3

Run = Callable[[Cell, str], None]
"""Trains and scores a cell on a device; pickled if cells run in processes of their own."""
Done = Callable[[Cell, str | None], None]
"""Called after each cell with None, or with a one-sentence error message."""


def devices_for(name: str, jobs: int) -> list[str]:
    """The device of each of `jobs` processes: of `auto` and `cuda` the GPUs in turn, else the one named."""
    gpus = torch.cuda.device_count() if name in ("auto", "cuda") and torch.cuda.is_available() else 0
    return [f"cuda:{job % gpus}" if gpus else name for job in range(jobs)]


def work_through(cells: Sequence[Cell], run: Run, done: Done, devices: Sequence[str]) -> None:
    """Run the cells in order.

    Args:
        devices: the device of each process; a single one runs the cells in this process.

    Raises:
        PreemptedError, InterruptedRunError: a signal asked to stop; what was trained is saved.
    """
    if len(devices) == 1 or len(cells) < 2:
        _here(cells, run, done, devices[0])
    else:
        _in_processes(cells, run, done, devices[: len(cells)])


def _here(cells: Sequence[Cell], run: Run, done: Done, device: str) -> None:
    # Training handles signals itself; this is for those that arrive while a cell is scored.
    with stop_on_signals() as stop:
        for number, cell in enumerate(cells, start=1):
            log.info("%d/%d %s", number, len(cells), cell.name)
            done(cell, _attempt(cell, run, device))
            if stop.reason:
                raise stopped(stop.reason)


def _attempt(cell: Cell, run: Run, device: str) -> str | None:
    """Run a cell; return an error message of one sentence if it fails, else None."""
    try:
        run(cell, device)
    except (PreemptedError, InterruptedRunError):
        raise
    except Exception as error:
        log.debug("%s: %s", cell.name, traceback.format_exc())
        return _sentence(error)
    return None


def _sentence(error: Exception) -> str:
    if isinstance(error, CivaeError):
        return error.message
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _in_processes(cells: Sequence[Cell], run: Run, done: Done, devices: Sequence[str]) -> None:
    """Run each cell in its own process, so that one killed, as when memory runs out, does not end the others."""
    context = multiprocessing.get_context("spawn")
    threads = max(available_cores() // len(devices), 1)
    waiting = list(enumerate(cells, start=1))
    free = list(devices)
    running: dict[object, tuple[Cell, str, SpawnProcess, connection.Connection]] = {}
    terminal = terminal_here()
    with stop_on_signals() as stop:
        try:
            while waiting or running:
                while waiting and free and not stop.reason:
                    (number, cell), device = waiting.pop(0), free.pop(0)
                    log.info("%d/%d %s", number, len(cells), cell.name)
                    receiving, sending = context.Pipe(duplex=False)
                    task = (sending, cell, run, device, threads, terminal)
                    process = context.Process(target=_work, args=task, name=cell.name)
                    with _few_threads(threads):
                        process.start()
                    sending.close()
                    running[process.sentinel] = (cell, device, process, receiving)
                if stop.reason:
                    break
                sentinels = [process.sentinel for _, _, process, _ in running.values()]
                for sentinel in connection.wait(sentinels, POLL_SECONDS):
                    cell, device, process, receiving = running.pop(sentinel)
                    free.append(device)
                    done(cell, _result_of(process, receiving))
        finally:
            _stop([process for _, _, process, _ in running.values()])
        if stop.reason:
            raise stopped(stop.reason)


def _result_of(process: SpawnProcess, receiving: connection.Connection) -> str | None:
    """The error message of an ended process, including that it ended without a result; None if it succeeded."""
    process.join()
    try:
        said: tuple[str | None] | None = receiving.recv() if receiving.poll() else None
    except EOFError:
        said = None
    receiving.close()
    if said is not None:
        return said[0]
    if process.exitcode == -9:
        return "its process was killed, possibly because memory ran out (use fewer --jobs)"
    return f"its process exited with code {process.exitcode} and no result"


def _stop(processes: Sequence[SpawnProcess]) -> None:
    """Ask processes to save and exit, as a scheduler would, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


@contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Set OMP_NUM_THREADS, if unset, for processes started meanwhile, whose libraries read it when they load."""
    before = os.environ.get("OMP_NUM_THREADS")
    if before is None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)


def _work(
    sending: connection.Connection, cell: Cell, run: Run, device: str, threads: int, terminal: Terminal
) -> None:
    # Ctrl-C reaches the whole process group, but only the parent acts on it: it asks the workers to save and exit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    speak_as(terminal, cell.name)
    set_quiet(True)
    try:
        sending.send((_attempt(cell, run, device),))
    except (PreemptedError, InterruptedRunError) as error:
        raise SystemExit(error.exit_code) from None
    finally:
        sending.close()
