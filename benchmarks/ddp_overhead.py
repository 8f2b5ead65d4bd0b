"""Measure what distributed training costs per image, relative to processes that train side by side on their own.

    python benchmarks/ddp_overhead.py [--processes 2] [--batch 32] [--size 64] [--steps 10] [--rounds 5] [--json]

In every round the same steps are timed three times: in one process alone, while the others wait; in all processes
side by side, each on its own; and in all together, with gradients exchanged over Gloo. The second costs more than the
first because the machine is shared (caches, memory, clock); the third costs more than the second because of
DistributedDataParallel. Each cost is given as wall time of the slowest process, per image that one process handles,
and as CPU time including Gloo's threads, per image of all processes; on a machine with other load, only the latter
means much. Figures are medians over rounds with their range. Each process has one thread and trains the default
network on random images.
"""

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import time
from typing import Any

import torch
from torch import distributed as dist

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config, DataConfig, ModelConfig, TrainConfig
from civae_core.data.batches import Batch
from civae_core.model import IntactVAE
from civae_core.training.device import Compute
from civae_core.training.distributed import joined
from civae_core.training.learner import Learner

WAYS = ("alone", "beside", "together")
START = "spawn"
"""Start method of the processes: none inherits a thread or a lock of this one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32, help="images of one process and step")
    parser.add_argument("--parts", type=int, default=1, help="train.accumulate")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found) if options.json else describe(found))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Wall times of the slowest process for each way in every round, and summaries of wall and CPU time."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port = taken.getsockname()[1]
    processes: Any = multiprocessing.get_context(START)
    queue = processes.Queue()
    workers = [
        processes.Process(target=_worker, args=(rank, port, options, queue if rank == 0 else None))
        for rank in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    walls, busy, parameters = queue.get()
    for worker in workers:
        worker.join()
    images = options.batch * options.steps
    wall = {way: [1e3 * times[way] / images for times in walls] for way in WAYS}
    at_work = {way: 1 if way == "alone" else options.processes for way in WAYS}
    processor = {way: [1e3 * times[way] / images / at_work[way] for times in busy] for way in WAYS}
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "settings": vars(options),
        "parameters": parameters,
        "exchanged_bytes_per_step": 4 * parameters,
        "rounds": walls,
        "wall_ms_per_image": {way: spread(values) for way, values in wall.items()},
        "processor_ms_per_image": {way: spread(values) for way, values in processor.items()},
        "overhead_wall": spread([times["together"] / times["beside"] - 1 for times in walls]),
        "overhead_processor": spread([times["together"] / times["beside"] - 1 for times in busy]),
        "speed_up": spread([options.processes * times["alone"] / times["together"] for times in walls]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 4),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
    }


def describe(found: dict[str, Any]) -> str:
    """The result of `measure` as aligned lines."""
    settings = found["settings"]
    lines = [f"{settings['processes']} processes, {settings['batch']} images each at {settings['size']} px"]
    for clock in ("wall", "processor"):
        for way, of in found[f"{clock}_ms_per_image"].items():
            lines.append(
                f"{clock:<10} {way:<9} {of['median']:8.2f} ms an image ({of['low']:.2f} to {of['high']:.2f})"
            )
        over = found[f"overhead_{clock}"]
        lines.append(f"{clock:<10} overhead  {over['median']:8.1%} ({over['low']:.1%} to {over['high']:.1%})")
    lines.append(f"exchanged  {found['exchanged_bytes_per_step'] / 1e6:.2f} MB of gradients a step")
    of = found["speed_up"]
    lines.append(
        f"speed-up   {of['median']:.2f} over one process alone ({of['low']:.2f} to {of['high']:.2f})"
    )
    return "\n".join(lines)


def _worker(rank: int, port: int, options: argparse.Namespace, queue: Any) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": options.processes}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with joined("cpu"):
        by_itself, together = (_learner(options) for _ in range(2))
        together.wrap(compiled=False, distributed=True)
        batch = _batch(options, rank)
        for learner in (by_itself, together):
            learner.step(batch, 0)  # warm-up: the first step also creates the optimiser's moments
        walls, busy = [], []
        for number in range(options.rounds):
            order = WAYS[number % 3 :] + WAYS[: number % 3]
            times = {}
            for way in order:
                learner = together if way == "together" else by_itself
                times[way] = _timed(learner, batch, 0 if way == "alone" and rank else options.steps)
            walls.append({way: wall for way, (wall, _) in times.items()})
            busy.append({way: processor for way, (_, processor) in times.items()})
        if queue is not None:
            queue.put((walls, busy, sum(p.numel() for p in together.model.parameters())))


def _timed(learner: Learner, batch: Batch, steps: int) -> tuple[float, float]:
    """Wall time of the slowest process, and CPU time of all processes together, in seconds."""
    dist.barrier()
    begun, busy = time.perf_counter(), time.process_time()
    for _ in range(steps):
        learner.step(batch, 0)
    found = torch.tensor([time.perf_counter() - begun, time.process_time() - busy], dtype=torch.float64)
    slowest, together = found.clone(), found
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    dist.all_reduce(together)
    return float(slowest[0]), float(together[1])


def _learner(options: argparse.Namespace) -> Learner:
    roles = AttributeRoles((Attribute("Young", "binary"),), (Attribute("Male", "binary"),))
    config = Config(
        data=DataConfig(path="none", treatment=["Young"], covariates=["Male"]),
        model=ModelConfig(),
        train=TrainConfig(batch_size=options.batch * options.processes, accumulate=options.parts),
    )
    torch.manual_seed(0)
    compute = Compute(torch.device("cpu"), "fp32", False)
    return Learner(IntactVAE(config.model, roles, options.size, 3), config, roles, compute)


def _batch(options: argparse.Namespace, rank: int) -> Batch:
    generator = torch.Generator().manual_seed(rank)
    count, latent = options.batch, ModelConfig().latent
    labels_B2 = torch.randint(0, 2, (count, 2), generator=generator).float()
    return Batch(
        torch.rand(count, 3, options.size, options.size, generator=generator),
        labels_B2[:, :1],
        labels_B2[:, 1:],
        torch.ones(count),
        torch.randn(count, latent, generator=generator),
    )


if __name__ == "__main__":
    main()
