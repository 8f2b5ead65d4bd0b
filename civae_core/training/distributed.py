"""One process or many: the same code runs alone, under torchrun, and under srun with torchrun's variables."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed as dist

from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError, UsageError

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which a launcher informs each process; torchrun sets them, and docs/slurm.sh does so for srun."""
PATIENCE = timedelta(hours=1)
"""How long processes wait for another: the first one validates alone, which takes minutes unless the config asks for
ten times as much. If one ends, the others mostly notice at once, by its connection or torchrun."""


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports to the user."""
        return self.rank == 0

    def largest(self, number: int) -> int:
        """The maximum of `number` over all processes, so that all act on what one of them was told."""
        if self.world_size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        shared = torch.tensor([number], device=device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared.item())

    def differ(self, number: int) -> bool:
        """Whether `number` is not the same in all processes; each gets the same answer."""
        return self.largest(number) != -self.largest(-number)

    def wait_for_all(self) -> None:
        """Return once every process has called this."""
        self.largest(0)

    def lead(self, act: Callable[[], object]) -> None:
        """Let the first process act for all while the others wait.

        Raises:
            CivaeError: `act` raised one; all processes then raise, with the same exit code.
        """
        refused: CivaeError | None = None
        if self.is_first:
            try:
                act()
            except CivaeError as error:
                refused = error
        code = self.largest(refused.exit_code if refused is not None else 0)
        if refused is not None:
            raise refused
        if code:
            ended = CivaeError("the first process could not start", hint="see its error message")
            ended.exit_code = code
            raise ended

    def own_device(self, name: str) -> str:
        """The device name for this process: if several train together, a CUDA GPU of its own, or the CPU."""
        if self.world_size == 1 or name not in ("auto", "cuda"):
            return name
        if torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return "cpu" if name == "auto" else name

    def require_even_shares(self, batch_size: int, parts: int = 1) -> None:
        """Refuse a batch size that cannot be shared evenly among the processes, each share in `parts` equal parts.

        Raises:
            UsageError: it does not divide evenly.
        """
        if batch_size % self.world_size:
            raise UsageError(
                f"train.batch_size: {batch_size} images cannot be divided evenly among {self.world_size} processes",
                hint=f"for example --set train.batch_size={-(-batch_size // self.world_size) * self.world_size}",
            )
        share = batch_size // self.world_size
        if share % parts:
            fewer = max(n for n in range(1, min(parts, share) + 1) if share % n == 0)
            raise UsageError(
                f"train.accumulate: {parts} equal parts cannot be made of the {share} images of "
                f"each of {self.world_size} processes",
                hint=f"for example --set train.accumulate={fewer}",
            )


@contextmanager
def joined(device_name: str) -> Iterator[Processes]:
    """Join the processes that a launcher started with this one, if any: NCCL on GPUs, Gloo elsewhere.

    With NCCL, a process that fails leaves without closing its group, and should end at once.

    Raises:
        UsageError: the processes of this host cannot each have a GPU of their own, or were asked to train on MPS.
        CivaeError: contact with another process was lost while the block ran.
    """
    if not all(os.environ.get(name) for name in _LAUNCHED) or os.environ["WORLD_SIZE"] == "1":
        yield Processes()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device_name.startswith("cuda:"):
        raise UsageError(
            f"--device {device_name}: {os.environ['WORLD_SIZE']} processes cannot share one GPU",
            hint="use --device auto: each process then takes the GPU of its local rank",
        )
    if device_name.startswith("mps"):
        raise UsageError(
            f"--device {device_name}: {os.environ['WORLD_SIZE']} processes cannot train together on MPS",
            hint="use --device cpu, or start a single process",
        )
    on_gpu = device_name in ("auto", "cuda") and torch.cuda.is_available()
    if on_gpu:
        _require_gpu_each(device_name, local_rank)
        torch.cuda.set_device(local_rank)
    store, rank, world_size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(_this_life(), store)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=world_size)
    # NCCL closes a group once all processes do, and others may be waiting for what a failing one will never do.
    closes = backend == "gloo"
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local_rank)
        closes = True
    except (PreemptedError, InterruptedRunError):
        closes = True  # all processes agreed to stop
        raise
    except RuntimeError as error:
        if not _is_lost_contact(error):
            raise
        raise CivaeError(
            "lost contact with another training process",
            hint="it failed or was killed, and its output may say why; run the same command again to continue",
        ) from error
    finally:
        if closes:
            dist.destroy_process_group()


def _this_life() -> str:
    """A name for this start of the processes, different from that of their last start if torchrun restarted them.

    On a single host, torchrun keeps its store across restarts, so that the address of a killed process would be taken
    for its successor's, and all would wait for it. Hosts that restart together do not count restarts alike.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return f"civae {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0) if alone else 0}"


def _is_lost_contact(error: RuntimeError) -> bool:
    """Whether a backend failed, which Gloo reveals only in the error's text."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _require_gpu_each(device_name: str, local_rank: int) -> None:
    # torchrun tells each process how many its host has, so that all of them refuse and none waits for the others.
    processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), local_rank + 1)
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise UsageError(
            f"--device {device_name}: at least {processes} processes on this host see {gpus} GPU{'s' * (gpus != 1)}",
            hint="start one process for each GPU, and let each process see all GPUs of its host",
        )
