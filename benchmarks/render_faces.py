"""Measure how fast the face generator renders: images per second, medians over repeats.

    python benchmarks/render_faces.py [--sizes 32 64 128 256] [--repeats 9] [--threads 1]

The target is 300 images/s per core at 64 px. Images per second of CPU time is the figure per core, which holds on a
shared machine too; images per second of wall time is the speed that a user sees.
"""

import argparse
import platform
import statistics
import time

import torch

from civae_core.synthetic import FaceProcess

# Pixels that a timed call renders, so that all sizes take comparable times.
PIXELS = 256 * 64 * 64


def rates(size: int, repeats: int, seed: int) -> tuple[list[float], list[float]]:
    """Images per second of CPU time and of wall time, for each of `repeats` calls after one that is not counted."""
    process = FaceProcess(seed=seed, size=size)
    subjects = process.subjects(0, max(16, PIXELS // size**2))
    process.render(subjects)
    per_core, waited = [], []
    for _ in range(repeats):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        process.render(subjects)
        per_core.append(len(subjects) / (time.process_time() - begun_cpu))
        waited.append(len(subjects) / (time.perf_counter() - begun))
    return per_core, waited


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {args.threads} thread(s), seed {args.seed}")
    print("size   per core: median   slowest   fastest   waited for: median")
    for size in args.sizes:
        per_core, waited = rates(size, args.repeats, args.seed)
        low, middle, high = min(per_core), statistics.median(per_core), max(per_core)
        print(f"{size:4d}   {middle:16.0f}   {low:7.0f}   {high:7.0f}   {statistics.median(waited):18.0f}")


if __name__ == "__main__":
    main()
