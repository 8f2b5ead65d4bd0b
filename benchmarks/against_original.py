"""Ours and the original project's preset, side by side: how good is either after how much computing?

    python benchmarks/against_original.py --data DATA --out OUT [--write docs/against-original]

Trains `configs/original-64.yml` and our default network on the same prepared faces, each in a process of its own with
one thread, at the same time, and stops either at several points to score held-out images: mean squared error and
PSNR of reconstructions (τ = 0), and the relative effect error (τ = 1) where the data knows the truth. Time is
CPU time of the training process, so it hardly depends on what else the machine does. Stop it and call it again: it
goes on.

`--original-images` sets the original's time; give ours `--our-images` that fit into a fifth of it. Prints, and with
`--write` keeps as .json, .md and .png, when either reached what.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from civae_core.config import Config, load_config
from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread, labelled_rows
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import effect_terms, mse
from civae_core.evaluation.question import ask
from civae_core.figures.plots import PALETTE, new_figure, open_axes, rendered
from civae_core.files import write_json, write_text
from civae_core.model.stored import load_model
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.loop import train
from civae_core.training.setup import assign_roles, make_batches, make_model

CONFIGS = Path(__file__).parents[1] / "configs"
POINTS = (0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
"""Shares of the training after which it is scored."""
FILES = {"original": "original-64.yml", "ours": "quickstart.yml"}
LABELS = {"original": "the original's preset", "ours": "ours"}
SCORE_BATCH = 50
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Point:
    """How good a model is after some training."""

    images: int
    seconds: float
    """CPU time of training, in seconds."""
    gflop: float
    """Arithmetic of training, forward and backward, in 10⁹ operations."""
    mse: float
    """Of held-out reconstructions, images in [0,1], τ = 0."""
    psnr: float
    """Of that mean squared error, in dB."""
    relative_effect_error: float | None
    """Of held-out counterfactuals at τ = 1; None where no truth is known."""


def configs(
    data: PreparedData, treatment: str, covariates: Sequence[str], images: dict[str, int]
) -> dict[str, Config]:
    """Both methods' settings on this data."""
    shared = {
        "data.path": str(data.path),
        "data.treatment": treatment,
        "data.covariates": list(covariates),
        "data.descendants": [],
        "train.keep": 1,
        # Only what trains is to be timed.
        "train.sample_every": 10**12,
        "train.checkpoint_every": 10**12,
        "train.validate_images": 64,
    }
    return {
        name: load_config([CONFIGS / file], overrides={**shared, "train.images": images[name]})
        for name, file in FILES.items()
    }


def gflop_per_image(config: Config, data: PreparedData) -> tuple[float, int]:
    """Arithmetic of one training step for each of its images, in 10⁹ operations, and the model's parameters."""
    roles = assign_roles(config, data)
    compute = Compute.choose(CPU, "fp32", False)
    learner = Learner(make_model(config, roles, data), config, roles, compute)
    batch = make_batches(config, roles, data, compute, Processes()).at(0)
    with FlopCounterMode(display=False) as counter:
        learner.step(batch, 0)
    parameters = sum(p.numel() for p in learner.model.parameters())
    return counter.get_total_flops() / config.train.batch_size / 1e9, parameters


@torch.no_grad()
def score(run: Path, data: PreparedData, limit: int) -> tuple[float, float | None]:
    """Mean squared error of reconstructions and the relative effect error (or None) on test images."""
    method = TrainedModel("model", load_model(run, CPU))
    roles = method.stored.card.roles
    chosen = labelled_rows(data, roles, "test")
    question = ask(data, roles, chosen[evenly_spread(len(chosen), min(limit, len(chosen)))])[0]
    squared = torch.zeros(())
    error, size = torch.zeros(()), torch.zeros(())
    count = len(question.chosen)
    for start in range(0, count, SCORE_BATCH):
        asked = question.batch(data, slice(start, start + SCORE_BATCH), CPU)
        answer = method.answer(asked)
        assert answer.reconstruction_BCHW is not None
        squared += mse(answer.reconstruction_BCHW, asked.y_BCHW).sum()
        if asked.truth_BCHW is not None:
            terms = effect_terms(asked.y_BCHW, answer.with_noise_BCHW.clamp(0, 1), asked.truth_BCHW)
            error, size = error + terms.error_N.sum(), size + terms.size_N.sum()
    return squared.item() / count, (error / size).item() if size > 0 else None


def follow(config: Config, run: Path, limit: int) -> None:
    """Trains up to each point in turn and scores it; goes on after the last point that `run`.json has."""
    torch.set_num_threads(1)
    data = PreparedData.open(config.data.path)
    file = run.with_suffix(".json")
    gflop, parameters = gflop_per_image(config, data)
    points = json.loads(file.read_text("utf-8"))["points"] if file.exists() else []
    for share in POINTS:
        batch = config.train.batch_size
        images = max(round(share * config.train.images / batch), 1) * batch
        if points and images <= points[-1]["images"]:
            continue
        begun = time.process_time()
        train(config, run, device="cpu", stop_at=images)
        seconds = time.process_time() - begun + (points[-1]["seconds"] if points else 0.0)
        error, effect_error = score(run, data, limit)
        psnr = -10 * math.log10(error)
        points.append(asdict(Point(images, seconds, gflop * images, error, psnr, effect_error)))
        write_json(file, {"gflop_per_image": gflop, "parameters": parameters, "points": points})


def first_at(points: Sequence[dict[str, Any]], key: str, goal: float) -> dict[str, Any] | None:
    """The first point at which `key` is at most `goal`."""
    return next((point for point in points if point[key] is not None and point[key] <= goal), None)


def compared(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """The best that the original reached, by measure, when either got there, and where ours ended."""
    original, ours = numbers["original"]["points"], numbers["ours"]["points"]
    rows = []
    for key in ("mse", "relative_effect_error"):
        known = [point[key] for point in original if point[key] is not None]
        if known:
            goal = min(known)
            reached = {"original": first_at(original, key, goal), "ours": first_at(ours, key, goal)}
            rows.append({"measure": key, "goal": goal, **reached, "ours_at_its_end": ours[-1][key]})
    return rows


def as_markdown(numbers: dict[str, Any]) -> str:
    """What was reached when, and every point, as tables."""
    said = {"mse": "MSE of reconstructions", "relative_effect_error": "relative effect error"}
    lines = [
        "| best of the original's | | CPU time | ours | share of the time | of the arithmetic | ours ends at |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in numbers["reached"]:
        there, here = row["original"], row["ours"]
        shares = [f"{here[key] / there[key]:.3f}" for key in ("seconds", "gflop")] if here else ["–", "–"]
        ours = f"≤ {here['seconds']:.0f} s" if here else "not reached"
        cells = [said[row["measure"]], f"{row['goal']:.4f}", f"{there['seconds']:.0f} s", ours, *shares]
        lines.append(f"| {' | '.join(cells)} | {row['ours_at_its_end']:.4f} |")
    lines += [
        "",
        "| | images | CPU time (s) | arithmetic (TFLOP) | PSNR of reconstructions (dB) | relative effect error |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name in FILES:
        for p in numbers[name]["points"]:
            error = "–" if p["relative_effect_error"] is None else f"{p['relative_effect_error']:.3f}"
            cells = [
                f"{p['images']:,}",
                f"{p['seconds']:.0f}",
                f"{p['gflop'] / 1000:.1f}",
                f"{p['psnr']:.2f}",
                error,
            ]
            lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_figure(numbers: dict[str, Any]) -> Image.Image:
    """PSNR and relative effect error against CPU time."""
    measures = {"psnr": "PSNR of reconstructions (dB)", "relative_effect_error": "relative effect error"}
    shown = [key for key in measures if numbers["ours"]["points"][0][key] is not None]
    figure = new_figure(height=360)
    for place, key in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), place)
        open_axes(axes, "left", "bottom")
        for colour, name in zip(PALETTE, FILES, strict=False):
            points = numbers[name]["points"]
            times, values = [p["seconds"] for p in points], [p[key] for p in points]
            axes.plot(times, values, "o-", color=colour, label=LABELS[name])
        axes.set_xscale("log")
        axes.set_xlabel("training, seconds of one core")
        axes.set_title(measures[key], loc="left", fontsize=10)
        axes.legend(frameon=False)
    return rendered(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared images of 64 px")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two runs and their points")
    parser.add_argument("--treatment", default="Young")
    parser.add_argument(
        "--covariates",
        nargs="*",
        default=["Male", "Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes", "Skin_Tone"],
    )
    parser.add_argument("--original-images", type=int, default=20_000)
    parser.add_argument("--our-images", type=int, default=40_000)
    parser.add_argument("--limit", type=int, default=500, help="test images that are scored")
    parser.add_argument("--write", type=Path, help="also write PATH.json, PATH.md and PATH.png")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = PreparedData.open(options.data)
    images = {"original": options.original_images, "ours": options.our_images}
    made = configs(data, options.treatment, options.covariates, images)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=follow, args=(config, options.out / name, options.limit), name=name)
        for name, config in made.items()
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := [worker.name for worker in workers if worker.exitcode]:
        raise SystemExit(f"{' and '.join(failed)} did not finish; run the same command again to go on")
    numbers: dict[str, Any] = {
        name: json.loads((options.out / f"{name}.json").read_text("utf-8")) for name in FILES
    }
    numbers["data"] = {"name": data.name, "limit": options.limit}
    numbers["reached"] = compared(numbers)
    print(as_markdown(numbers))
    if options.write is not None:
        write_json(options.write.with_suffix(".json"), numbers)
        write_text(options.write.with_suffix(".md"), as_markdown(numbers))
        as_figure(numbers).save(options.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
