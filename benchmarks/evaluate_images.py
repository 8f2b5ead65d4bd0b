"""Measure how fast an evaluation is, and how much memory it takes as the number of images grows.

    python benchmarks/evaluate_images.py [--images 250 1000 4000] [--size 32]

Each row is measured in a separate process, so that its peak memory is its own. Model and scorer are barely trained,
since neither speed nor memory depends on their weights. Prints one JSON object per row.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.instruments import choose_instruments
from civae_core.model.stored import load_model
from civae_core.progress import set_quiet
from civae_core.quickstart import quickstart_config
from civae_core.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_quiet(True)
    if options.one is not None:
        print(json.dumps(measure(options.one, options.images[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        set_up(work, max(options.images), options.size)
        environment = {**os.environ, "CIVAE_CACHE": str(work / "cache")}
        for count in options.images:
            command = [sys.executable, __file__, "--one", str(work), "--images", str(count)]
            row = json.loads(
                subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
            )
            print(
                json.dumps(
                    {"machine": platform.processor() or platform.machine(), "size": options.size, **row}
                )
            )


def set_up(work: Path, images: int, size: int) -> None:
    """Prepare faces, a tenth of them test images with a known truth, and train a model on 64 images."""
    source = faces_source(
        count=10 * images,
        seed=0,
        overlap=0.5,
        truths=[TruthSpec("Young=flip", {"Young": "flip"})],
        size=size,
        channels=3,
    )
    prepare(source, work / "data", workers=os.cpu_count() or 1, max_bad=MaxBad("0", count=0))
    train(quickstart_config("ours", work / "data", 64), work / "run", device="cpu")


def measure(work: Path, images: int) -> dict[str, float | int]:
    """Evaluate `images` images, without drawing pictures, and return the time and memory that this took."""
    data, device = PreparedData.open(work / "data"), torch.device("cpu")
    model = load_model(work / "run", device)
    instruments = choose_instruments(data, model.card.roles, device, scorer_images=64)
    before = peak_mib()
    began = time.perf_counter()
    evaluate([model], data, limit=images, instruments=instruments, pictures=False)
    seconds = time.perf_counter() - began
    return {
        "images": images,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1),
        "peak_mib_before": before,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
