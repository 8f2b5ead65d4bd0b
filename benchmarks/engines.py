"""Compare the time that a counterfactual takes in torch and through the ONNX export beside a model.

    python benchmarks/engines.py RUN PHOTO [--batch 32] [--rounds 7] [--out engines.json]

RUN needs an export: `civae export RUN`. Prints one JSON object:

- `start_to_picture`: the whole command for one photograph, each time in a new process, with both engines in turn.
  Seconds of wall time and of CPU time, since on a shared machine the wall time also depends on the other users.
- `batch`, `single`: abduction and prediction in one process, with both engines in turn on the same arrays. Images per
  second, the ratio of each round's times, and the largest difference between the images.

Figures are medians over the rounds; ratios also have their lowest and highest value. OMP_NUM_THREADS sets the number
of cores that both engines may use.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from civae_core.engine.base import Array, Engine
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.inference.engines import open_engine
from civae_core.inference.torch_engine import TorchEngine
from civae_core.machine import available_cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    fast, slow = open_engine(options.run, "onnx"), open_engine(options.run, "torch", "cpu")
    assert isinstance(fast, OnnxEngine) and isinstance(slow, TorchEngine)
    threads = int(os.environ.get("OMP_NUM_THREADS", available_cores()))
    torch.set_num_threads(threads)
    result = {
        "machine": {
            "processor": _processor(),
            "cores": available_cores(),
            "threads": threads,
            "load_before": [round(load, 2) for load in os.getloadavg()],
            "torch": torch.__version__,
            "onnxruntime": version("onnxruntime"),
        },
        "model": {
            "size": slow.preprocessing["size"],
            "weights": sum(weight.numel() for weight in slow.model.parameters()),
        },
        "start_to_picture": start_to_picture(options.run, options.photo, options.rounds, slow),
        "single": throughput(fast, slow, 1, options.rounds),
        "batch": throughput(fast, slow, options.batch, options.rounds),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def start_to_picture(run: Path, photo: Path, rounds: int, engine: Engine) -> dict[str, Any]:
    """Seconds that `civae counterfactual` takes for one photograph whose attributes are not stated."""
    treat = f"{engine.roles.treatments[0].name}={engine.roles.treatments[0].high:g}"
    wall: dict[str, list[float]] = {"torch": [], "onnx": []}
    processor: dict[str, list[float]] = {"torch": [], "onnx": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name in wall:
                command = counterfactual_command(run, photo, treat, name, Path(folder))
                before, start = _child_seconds(), time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                wall[name].append(time.perf_counter() - start)
                processor[name].append(_child_seconds() - before)
    return {
        "wall_seconds": {name: round(statistics.median(times), 3) for name, times in wall.items()},
        "wall_seconds_least": {name: round(min(times), 3) for name, times in wall.items()},
        "processor_seconds": {name: round(statistics.median(times), 3) for name, times in processor.items()},
        "wall_ratio": _ratios(wall["torch"], wall["onnx"]),
    }


def counterfactual_command(run: Path, photo: Path, treat: str, engine: str, out: Path) -> list[str]:
    """The command `civae counterfactual` for one photograph with the given engine, on the CPU."""
    command = [sys.executable, "-m", "civae_cli", "counterfactual", str(photo), "--model", str(run)]
    return [*command, "--treat", treat, "--engine", engine, "--device", "cpu", "--out", str(out), "--quiet"]


def throughput(fast: Engine, slow: Engine, count: int, rounds: int) -> dict[str, Any]:
    """Images per second, with one counterfactual each, by both engines in turn."""
    answer = question(slow, count)
    repeats = max(1, 32 // count)
    difference = float(np.abs(answer(fast) - answer(slow)).max())
    times: dict[str, list[float]] = {"torch": [], "onnx": []}
    for _ in range(rounds):
        for name, engine in (("torch", slow), ("onnx", fast)):
            times[name].append(_seconds(lambda engine=engine: answer(engine), repeats) / repeats)  # type: ignore[misc]
    return {
        "images": count,
        "images_per_second": {name: round(count / statistics.median(t), 1) for name, t in times.items()},
        "ratio": _ratios(times["torch"], times["onnx"]),
        "largest_difference": difference,
    }


def question(engine: Engine, count: int) -> Callable[[Engine], Array]:
    """Draw `count` pictures with `engine`; return a function that computes their counterfactuals with any engine."""
    generator = np.random.default_rng(0)
    subjects_BA = np.array(engine.subjects, dtype=np.float32)[
        generator.integers(len(engine.subjects), size=count)
    ]
    t_BT, x_BX = np.split(subjects_BA, [len(engine.roles.treatments)], axis=1)
    noise_BZ = generator.standard_normal((count, engine.latent), dtype=np.float32)
    y_BCHW = engine.draw(x_BX, t_BT, noise_BZ).clip(0, 1)
    t_new_BT = t_BT.copy()
    t_new_BT[:, 0] = engine.roles.treatments[0].low + engine.roles.treatments[0].high - t_BT[:, 0]

    def answer(by: Engine) -> Array:
        abducted = by.abduct(y_BCHW, x_BX, t_BT)
        return by.predict(abducted, t_new_BT, noise=1.0, strength=1.0).image_BCHW

    return answer


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def _ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        "median": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
    }


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()
