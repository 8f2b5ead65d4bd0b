"""Runs several processes that train together, forked from the test, so that none has to import anything again."""

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

TIMEOUT_S = 600
PORTS = range(20_000, 30_000)
"""Below the ports that systems give to programs that ask for any, so that no other program is given one of these."""
_kept: list[FileLock] = []


def free_port() -> str:
    """A port that is given to no other test process as long as this one lives."""
    for number in range(PORTS.start + os.getpid() % len(PORTS), PORTS.stop + os.getpid() % len(PORTS)):
        port = PORTS.start + number % len(PORTS)
        lock = FileLock(Path(tempfile.gettempdir()) / f"civae-tests-port-{port}.lock")
        try:
            lock.acquire(timeout=0)
            with socket.socket() as taken:
                taken.bind(("localhost", port))
        except (Timeout, OSError):
            continue
        _kept.append(lock)
        return str(port)
    raise AssertionError("no port is free")


def places(world_size: int) -> list[dict[str, str]]:
    """The environment that a launcher would give to each of `world_size` processes on this machine."""
    common = {"WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "MASTER_PORT": free_port()}
    return [
        {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        | {"MASTER_ADDR": "localhost"}
        for rank in range(world_size)
    ]


def run_ranks(world_size: int, work: Callable[[], Any]) -> list[Any]:
    """Run `work` in `world_size` processes with torchrun's environment, and return what it returns in each."""
    fork = multiprocessing.get_context("fork")
    started = []
    for place in places(world_size):
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(place, work, sender))
        process.start()
        sender.close()
        started.append((process, receiver))
    results = []
    try:
        for rank, (_, receiver) in enumerate(started):
            assert receiver.poll(TIMEOUT_S), f"process {rank} says nothing"
            failure, result = receiver.recv()
            assert failure is None, f"process {rank}:\n{failure}"
            results.append(result)
    finally:
        for process, _ in started:
            process.join(10)
            process.kill()
    return results


def _work(place: dict[str, str], work: Callable[[], Any], sender: Connection) -> None:
    os.environ |= place
    try:
        sender.send((None, work()))
    except BaseException:
        sender.send((traceback.format_exc(), None))


def start_commands(arguments: Sequence[object], world_size: int, said: Path) -> list[BaseProcess]:
    """Start the same `civae` command in each of `world_size` processes.

    A process writes its stderr to the file `said` with its rank appended, and its stdout to that name with `.out`.
    """
    fork = multiprocessing.get_context("fork")
    words = [str(argument) for argument in arguments]
    started: list[BaseProcess] = []
    for rank, place in enumerate(places(world_size)):
        stderr = said.with_name(f"{said.name}-{rank}")
        started.append(fork.Process(target=_command, args=(words, place, stderr)))
        started[-1].start()
    return started


def end_of(processes: Sequence[BaseProcess], said: Path) -> tuple[list[int | None], list[str]]:
    """Wait until all have ended; return their exit codes, negative for signals, and the stderr of each."""
    try:
        for process in processes:
            process.join(TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
    texts = [said.with_name(f"{said.name}-{rank}").read_text("utf-8") for rank in range(len(processes))]
    return [process.exitcode for process in processes], texts


def _command(arguments: list[str], place: dict[str, str], stderr: Path) -> None:
    from civae_cli.app import main

    os.environ |= place
    stdout = stderr.with_name(f"{stderr.name}.out")
    with stderr.open("w", encoding="utf-8") as sys.stderr, stdout.open("w", encoding="utf-8") as sys.stdout:
        os.dup2(sys.stderr.fileno(), 2)
        os.dup2(sys.stdout.fileno(), 1)
        sys.argv = ["civae", *arguments]
        main()  # ends the process itself, as it does whenever there are several
