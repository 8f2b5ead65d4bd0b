"""Rows of preparing photographs and of loading batches, against how the original project does either."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.performance.bench import CPU, QUICK_ONLY, Bench
from benchmarks.performance.machine import NO_GPU
from benchmarks.performance.measure import Goal, Row, compared, interleaved, not_measured
from civae_core.data.sources.celeba import CROP
from civae_core.machine import available_cores
from civae_core.training.device import Compute

PREPARATION, LOADING = "data preparation", "data loading"
ORIGINAL_WAY = "Pillow: open, crop, resize, NumPy"
ORIGINAL_BATCH = "JPEGs, each opened, cropped, resized, made floats"
TWICE = Goal(ratio=2.0)


def opened(path: Path, size: int) -> np.ndarray:
    """A photograph as the original prepares it: uint8 [S,S,3]."""
    with Image.open(path) as image:
        left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
        cropped = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
        return np.asarray(cropped.resize((size, size), Image.Resampling.BILINEAR))


def preparation_rows(bench: Bench) -> list[Row]:
    """Photographs to arrays by one core at two sizes, and to a prepared folder by one core and by all."""
    rows = []
    photos = bench.photos
    for size in (bench.scale.size, bench.scale.large):
        reader = bench.source(size).reader
        times = interleaved(
            {
                ORIGINAL_WAY: lambda size=size: [opened(path, size) for path in photos],  # type: ignore[misc]
                f"read and resized to {size} px": lambda reader=reader: reader.read(range(len(photos))),  # type: ignore[misc]
            },
            bench.scale.plan,
        )
        rows += compared(PREPARATION, times, ORIGINAL_WAY, items=len(bench.photos), goal=TWICE)
    return rows + _folder_rows(bench)


def _folder_rows(bench: Bench) -> list[Row]:
    size, cores = bench.scale.size, available_cores()
    numbers = itertools.count()

    def folder(workers: int) -> None:
        out = bench.folder / f"prepared-{next(numbers)}"
        bench.prepared(out, size, workers)
        shutil.rmtree(out)

    one, all_ = f"a folder of {size} px images, one process", f"the same, {cores} processes"
    ways = {ORIGINAL_WAY: lambda: [opened(path, size) for path in bench.photos], one: lambda: folder(1)}
    if bench.scale.slow and cores > 1:
        ways[all_] = lambda: folder(cores)
    times = interleaved(ways, bench.scale.plan)
    rows = compared(
        PREPARATION, {n: times[n] for n in (ORIGINAL_WAY, one)}, ORIGINAL_WAY, items=len(bench.photos)
    )
    if all_ not in times:
        return rows + not_measured(PREPARATION, [all_], one, QUICK_ONLY if cores > 1 else "one core")
    return rows + compared(PREPARATION, {n: times[n] for n in (one, all_)}, one, items=len(bench.photos))


def loading_rows(bench: Bench) -> list[Row]:
    """Batches on the CPU from files and from memory; on a GPU from its own memory."""
    compute = Compute.choose(CPU)
    batches = {name: bench.batches(compute, data__cache=name) for name in ("mmap", "ram")}
    count = bench.scale.batch
    photos = list(itertools.islice(itertools.cycle(bench.photos), count))

    def original() -> torch.Tensor:
        images = [opened(path, bench.scale.size).transpose(2, 0, 1) for path in photos]
        return torch.from_numpy(np.stack(images)).float().div_(127.5).sub_(1)

    ways = {ORIGINAL_BATCH: original} | {
        f"prepared images, data.cache: {name}": lambda of=of: of.at(0) for name, of in batches.items()
    }
    rows = compared(LOADING, interleaved(ways, bench.scale.plan), ORIGINAL_BATCH, items=count)
    return rows + _gpu_loading_rows(bench)


def _gpu_loading_rows(bench: Bench) -> list[Row]:
    kept, baseline = "prepared images, data.cache: device", "prepared images to the GPU, data.cache: mmap"
    if not torch.cuda.is_available():
        return not_measured(LOADING, [kept], baseline, NO_GPU)
    compute = Compute.choose(torch.device("cuda"))
    mapped, resident = (bench.batches(compute, data__cache=name) for name in ("mmap", "device"))
    ways = {baseline: lambda: mapped.at(0), kept: lambda: resident.at(0)}
    times = interleaved(ways, bench.scale.plan, torch.cuda.synchronize)
    return compared(LOADING, times, baseline, items=bench.scale.batch)
