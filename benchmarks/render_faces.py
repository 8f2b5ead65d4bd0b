"""How fast the face generator renders: images per second, medians over repeats.

    python benchmarks/render_faces.py [--sizes 32 64 128 256] [--repeats 9] [--threads 1]

The target is 300 images/s per core at 64 px.
"""

import argparse
import platform
import statistics
import time

import torch

from civae_core.synthetic import FaceProcess

# Pixels a timed call renders, so that every size takes a comparable time.
PIXELS = 256 * 64 * 64


def rates(size: int, repeats: int, seed: int) -> list[float]:
    """Images per second of each of `repeats` calls, after one that is not counted."""
    process = FaceProcess(seed=seed, size=size)
    subjects = process.subjects(0, max(16, PIXELS // size**2))
    process.render(subjects)
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        process.render(subjects)
        found.append(len(subjects) / (time.perf_counter() - begun))
    return found


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
    print("size   images/s (median)   slowest   fastest")
    for size in args.sizes:
        found = rates(size, args.repeats, args.seed)
        print(f"{size:4d}   {statistics.median(found):17.0f}   {min(found):7.0f}   {max(found):7.0f}")


if __name__ == "__main__":
    main()
