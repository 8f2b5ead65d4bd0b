"""Several processes that train together, forked from the test: none has to import anything again."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_S = 300


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return str(taken.getsockname()[1])


def run_ranks(world_size: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` returns in each of so many processes, which know their places as torchrun would tell them."""
    port, fork = free_port(), multiprocessing.get_context("fork")
    started = []
    for rank in range(world_size):
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(rank, world_size, port, work, sender))
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


def _work(rank: int, world_size: int, port: str, work: Callable[[], Any], sender: Connection) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    try:
        sender.send((None, work()))
    except BaseException:
        sender.send((traceback.format_exc(), None))
