"""Rows for preparing photographs and for loading batches, against how the original project does either."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.performance.bench import CPU, QUICK_ONLY, Bench, prepared, repeated
from benchmarks.performance.machine import NO_GPU
from benchmarks.performance.measure import Call, Goal, Row, compared, interleaved, not_measured
from civae_core.data.sources.celeba import CROP
from civae_core.machine import available_cores
from civae_core.training.device import Compute, choose_device

PREPARATION, LOADING = "data preparation", "data loading"
ORIGINAL_WAY = "the original's pipeline: Pillow, then torchvision to normalised floats"
PILLOW = "Pillow: open, crop, resize, NumPy"
ORIGINAL_BATCH = "JPEGs, each opened, cropped, resized, made floats"
NO_TORCHVISION = "torchvision is not installed"
TWICE = Goal(ratio=2.0)
NEARLY = 0.8
"""A speed-up of this share of the number of cores counts as nearly linear."""


def transformed(path: Path, way: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    """A photograph as the original prepares it, anew in every epoch: float [3,S,S]."""
    with Image.open(path) as image:
        return way(image.convert("RGB"))


def original_way(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """The original's transforms."""
    from torchvision import transforms

    half = [0.5] * 3
    return transforms.Compose(
        [
            transforms.CenterCrop(CROP),
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize(half, half),
        ]
    )


def opened(path: Path, size: int) -> np.ndarray:
    """A photograph read by Pillow alone: uint8 [S,S,3]."""
    with Image.open(path) as image:
        left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
        cropped = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
        return np.asarray(cropped.resize((size, size), Image.Resampling.BILINEAR))


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one core; otherwise it splits a photograph's arithmetic, and waits for cores that are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def preparation_rows(bench: Bench) -> list[Row]:
    """Rows for photographs to arrays at two sizes, per second of a core, and to a folder by one process and by all.

    The first are measured in CPU time, which gives the speed of a core on a busy machine too.
    """
    photos, rows = bench.photos, []
    has_original = find_spec("torchvision") is not None
    plan = replace(bench.scale.plan, rounds=3 * bench.scale.plan.rounds)  # each call takes about a second
    for size in (bench.scale.size, bench.scale.large):
        name = f"read and resized to {size} px, in one core's time"
        ways: dict[str, Call] = {
            PILLOW: partial(_all_opened, photos, size),
            name: partial(bench.source(size).reader.read, range(len(photos))),
        }
        if has_original:
            ways[ORIGINAL_WAY] = partial(_all_transformed, photos, original_way(size))
        with one_thread():
            times = interleaved(ways, plan, clock=time.process_time)
        for baseline, goal in ((ORIGINAL_WAY, TWICE), (PILLOW, None)):
            if baseline in times:
                both = {way: times[way] for way in (baseline, name)}
                rows += compared(PREPARATION, both, baseline, items=len(photos), goal=goal)
            else:
                rows += not_measured(PREPARATION, [name], baseline, NO_TORCHVISION)
    return rows + _folder_rows(bench)


def _folder_rows(bench: Bench) -> list[Row]:
    """Rows for `prepare-data`, from files to the finished folder with its report."""
    size, cores = bench.scale.size, available_cores()
    source = repeated(bench.source(size), bench.scale.repeats)
    count, numbers = len(source.table.file_names), itertools.count()

    def prepare_folder(workers: int) -> None:
        out = bench.folder / f"prepared-{next(numbers)}"
        prepared(source, out, workers)
        shutil.rmtree(out)

    one, all_ = f"{count:,} photographs into a folder, {size} px, one process", f"the same, {cores} processes"
    ways: dict[str, Call] = {PILLOW: partial(_all_opened, bench.photos, size)}
    ways[one] = partial(prepare_folder, 1)
    if bench.scale.slow and cores > 1:
        ways[all_] = partial(prepare_folder, cores)
    times = interleaved(ways, bench.scale.plan)
    shown = {name: times[name] for name in (PILLOW, one)}
    rows = compared(PREPARATION, shown, PILLOW, items=count, baseline_items=len(bench.photos))
    if all_ not in times:
        return rows + not_measured(PREPARATION, [all_], one, QUICK_ONLY if cores > 1 else "one core")
    shown = {name: times[name] for name in (one, all_)}
    return rows + compared(PREPARATION, shown, one, items=count, goal=Goal(ratio=NEARLY * cores))


def _all_opened(photos: Sequence[Path], size: int) -> list[np.ndarray]:
    return [opened(path, size) for path in photos]


def _all_transformed(photos: Sequence[Path], way: Callable[[Image.Image], torch.Tensor]) -> None:
    for path in photos:
        transformed(path, way)


def loading_rows(bench: Bench) -> list[Row]:
    """Rows for batches on the CPU from files and from memory, and on a GPU from its own memory."""
    compute = Compute.choose(CPU)
    batches = {name: bench.batches(compute, data__cache=name) for name in ("mmap", "ram")}
    count = bench.scale.batch
    photos = list(itertools.islice(itertools.cycle(bench.photos), count))

    def original() -> torch.Tensor:
        images = [opened(path, bench.scale.size).transpose(2, 0, 1) for path in photos]
        return torch.from_numpy(np.stack(images)).float().div_(127.5).sub_(1)

    ways = {ORIGINAL_BATCH: original} | {
        f"prepared images, data.cache: {name}": partial(of.at, 0) for name, of in batches.items()
    }
    rows = compared(LOADING, interleaved(ways, bench.scale.plan), ORIGINAL_BATCH, items=count)
    return rows + _gpu_loading_rows(bench)


def _gpu_loading_rows(bench: Bench) -> list[Row]:
    kept, baseline = "prepared images, data.cache: device", "prepared images to the GPU, data.cache: mmap"
    if not torch.cuda.is_available():
        return not_measured(LOADING, [kept], baseline, NO_GPU)
    compute = Compute.choose(choose_device("cuda"))
    mapped, resident = (bench.batches(compute, data__cache=name) for name in ("mmap", "device"))
    ways = {baseline: partial(mapped.at, 0), kept: partial(resident.at, 0)}
    times = interleaved(ways, bench.scale.plan, torch.cuda.synchronize)
    return compared(LOADING, times, baseline, items=bench.scale.batch)
