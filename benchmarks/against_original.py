"""Compare our network with the original project's preset: how good is each after how much computing?

    python benchmarks/against_original.py --data DATA --out OUT [--write docs/against-original]

Trains `configs/original-64.yml` and `configs/quickstart.yml` on the same prepared faces at the same time, each in a
separate process with one thread, and stops each training at several points to score held-out images: mean squared
error and PSNR of reconstructions (τ = 0), and the relative effect error (τ = 1) if the data has the truth. Time is
the CPU time of training, including start-up and validation but not scoring. If the script is interrupted, run it
again to continue.

The learning rate of ours decays over the whole training, so in the middle of a long training ours is behind a short
one that has finished. Hence a third training: ours on a fifth of the images (`--our-images`).

Choose `--original-images` and `--our-images` such that both take the same time. Prints the goals and whether they
were reached; `--write` saves this as .json and .png, and as tables in .md, between the markers of that name.
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
FILES = {"original": "original-64.yml", "ours": "quickstart.yml", "short": "quickstart.yml"}
LABELS = {"original": "the original's preset", "ours": "ours", "short": "ours, a fifth as long"}
POINTS = {
    "original": (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0),
    "ours": (
        *(n / 100 for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 80, 90, 95)),
        1.0,
    ),
    "short": (0.1, 0.25, 0.5, 0.75, 1.0),
}
"""Shares of a training after which it is scored; those of ours are dense up to a fifth of the time."""
GOAL_SHARE, GOAL_DB = 0.2, 3.0
"""Goals: ours should be as good in this share of the original's time, and this many dB better in the same time."""
MEASURES = {"mse": "MSE of reconstructions", "relative_effect_error": "relative effect error"}
VERDICTS = {True: "reached", False: "**missed**", None: "**open**: ours had less time"}
FULL_SHARE = 0.85
"""With less than this share of the original's time, ours cannot be said to have missed the goal in dB."""
SCORE_BATCH = 50
ONLY_TRAINED = {
    "train.keep": 1,
    "train.sample_every": 10**12,
    "train.checkpoint_every": 10**12,
    "train.validate_images": 64,
}
"""Settings under which almost all the time is spent on training."""
START = "spawn"
"""Start method of the processes: none inherits a thread or a lock of this one."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Point:
    """How good a model is at one point of its training."""

    images: int
    seconds: float
    """CPU time of training, in seconds."""
    gflop: float
    """Arithmetic of training, forward and backward, in 10⁹ operations."""
    mse: float
    """Mean squared error of held-out reconstructions (τ = 0), images in [0,1]."""
    psnr: float
    """PSNR of that mean squared error, in dB."""
    relative_effect_error: float | None
    """That of held-out counterfactuals at τ = 1; None if no truth is known."""


Curve = list[dict[str, Any]]
"""Points of one training, in order."""


def configs(
    data: PreparedData, treatment: str, covariates: Sequence[str], images: dict[str, int]
) -> dict[str, Config]:
    """Configs of the three trainings on this data, by name."""
    shared = {
        "data.path": str(data.path),
        "data.treatment": treatment,
        "data.covariates": list(covariates),
        "data.descendants": [],
        **ONLY_TRAINED,
    }
    return {
        name: load_config([CONFIGS / file], overrides={**shared, "train.images": images[name]})
        for name, file in FILES.items()
    }


def gflop_per_image(config: Config, data: PreparedData) -> tuple[float, int]:
    """Arithmetic of a training step per image, in 10⁹ operations, and the model's number of parameters."""
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


def follow(config: Config, run: Path, shares: Sequence[float], limit: int) -> None:
    """Train up to each point in turn and score it, continuing after the last point in `run`.json."""
    torch.set_num_threads(1)
    data = PreparedData.open(config.data.path)
    file = run.with_suffix(".json")
    gflop, parameters = gflop_per_image(config, data)
    told = json.loads(file.read_text("utf-8")) if file.exists() else {"seconds": 0.0, "points": []}
    points, seconds = told["points"], told["seconds"]

    def keep() -> None:
        found = {"gflop_per_image": gflop, "parameters": parameters, "seconds": seconds, "points": points}
        write_json(file, found)

    for share in shares:
        batch = config.train.batch_size
        images = max(round(share * config.train.images / batch), 1) * batch
        if points and images <= points[-1]["images"]:
            continue
        begun = time.process_time()
        try:
            train(config, run, device="cpu", stop_at=images)
        finally:
            seconds += time.process_time() - begun  # also when a signal stops it: the work was saved
            keep()
        error, effect_error = score(run, data, limit)
        psnr = -10 * math.log10(error)
        points.append(asdict(Point(images, seconds, gflop * images, error, psnr, effect_error)))
        keep()


def first_at(points: Curve, key: str, goal: float) -> dict[str, Any] | None:
    """The first point at which `key` is at most `goal`."""
    return next((point for point in points if point[key] is not None and point[key] <= goal), None)


def caught_up(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """For each measure, the original's last and best value, and the first point where each training is as good."""
    points = numbers["original"]["points"]
    rows = []
    for key in MEASURES:
        if points[-1][key] is None:
            continue
        for of, there in (("last", points[-1]), ("best", min(points, key=lambda point: point[key]))):
            if of == "best" and there is points[-1]:
                continue
            first = {name: first_at(numbers[name]["points"], key, there[key]) for name in FILES}
            spent = {"seconds": there["seconds"], "gflop": there["gflop"]}
            rows.append({"measure": key, "of": of, "goal": there[key], **spent, **first})
    return rows


def at_the_same_time(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Each point of the original, with the last point of ours by that time in the better of its two trainings."""
    rows = []
    for there in numbers["original"]["points"]:
        last = [
            earlier[-1]
            for name in ("ours", "short")
            if (earlier := [p for p in numbers[name]["points"] if p["seconds"] <= there["seconds"]])
        ]
        if last:
            here = max(last, key=lambda point: point["psnr"])
            rows.append({"original": there, "ours": here, "db": here["psnr"] - there["psnr"]})
    return rows


def goals(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of ours, what it achieved, and whether that is enough; None if ours has not had its time."""
    found = []
    for row in (row for row in numbers["caught_up"] if row["of"] == "last"):
        shares = [row[name]["seconds"] / row["seconds"] for name in ("ours", "short") if row[name]]
        share = min(shares) if shares else None
        text = f"the original's last {MEASURES[row['measure']]} in at most {GOAL_SHARE:.0%} of its time"
        came_to = f"{share:.1%}" if share is not None else "never as good"
        found.append({"goal": text, "came_to": came_to, "reached": share is not None and share <= GOAL_SHARE})
    if numbers["same_time"]:
        db = numbers["same_time"][-1]["db"]
        text = f"at least {GOAL_DB:g} dB more PSNR of reconstructions in the same time"
        here, there = (numbers["same_time"][-1][name]["seconds"] for name in ("ours", "original"))
        came_to = f"{db:+.2f} dB, ours after {here:.0f} s and the original after {there:.0f} s"
        reached = True if db >= GOAL_DB else False if here >= FULL_SHARE * there else None
        found.append({"goal": text, "came_to": came_to, "reached": reached})
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def as_markdown(numbers: dict[str, Any]) -> str:
    """Tables of the networks, the goals, when ours caught up, and both at the same times."""
    parts = [
        f"**Not finished:** {label} has seen {of['seen']:,} of {of['of']:,} images.\n"
        for label, of in numbers["unfinished"].items()
    ]
    parts += [
        table(
            [
                "",
                "parameters",
                "GFLOP an image, forward and backward",
                "images trained on",
                "CPU time",
                "of an image",
            ],
            [
                [
                    LABELS[name],
                    f"{of['parameters']:,}",
                    f"{of['gflop_per_image']:.2f}",
                    f"{(end := of['points'][-1])['images']:,}",
                    f"{end['seconds']:.0f} s",
                    f"{1000 * end['seconds'] / end['images']:.0f} ms",
                ]
                for name, of in ((name, numbers[name]) for name in FILES)
            ],
        ),
        table(
            ["ours is to reach", "it came to", ""],
            [[g["goal"], g["came_to"], VERDICTS[g["reached"]]] for g in numbers["goals"]],
        ),
    ]
    rows = []
    for row in numbers["caught_up"]:
        for name in FILES:
            cells = [f"{MEASURES[row['measure']]}, {row['of']}", number(row["goal"], 4)]
            cells += [f"{row['seconds']:.0f} s", LABELS[name]]
            if (here := row[name]) is None:
                rows.append([*cells, "not reached", "–", "–", "–"])
                continue
            shares = [f"{here[key] / row[key]:.3f}" for key in ("seconds", "gflop")]
            rows.append([*cells, f"{here['seconds']:.0f} s", number(here[row["measure"]], 4), *shares])
    head = [
        "the original's",
        "is",
        "after",
        "as good first",
        "after",
        "with",
        "share of the time",
        "of the arithmetic",
    ]
    parts.append(table(head, rows))
    parts.append(
        table(
            [
                "time",
                "the original's PSNR (dB)",
                "ours by then",
                "difference",
                "the original's effect error",
                "ours",
            ],
            [
                [
                    f"{there['seconds']:.0f} s",
                    number(there["psnr"], 2),
                    number(here["psnr"], 2),
                    f"{row['db']:+.2f}",
                    number(there["relative_effect_error"], 3),
                    number(here["relative_effect_error"], 3),
                ]
                for row in numbers["same_time"]
                for there, here in [(row["original"], row["ours"])]
            ],
        )
    )
    return "\n".join(parts)


def as_figure(numbers: dict[str, Any]) -> Image.Image:
    """PSNR and relative effect error against CPU time, with a mark at a fifth of the original's time."""
    measures = {"psnr": "PSNR of reconstructions (dB)", "relative_effect_error": "relative effect error"}
    shown = [key for key in measures if numbers["ours"]["points"][0][key] is not None]
    figure = new_figure(height=360)
    end = numbers["original"]["points"][-1]
    for place, key in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), place)
        open_axes(axes, "left", "bottom")
        for colour, name in zip(PALETTE, FILES, strict=False):
            points = numbers[name]["points"]
            times, values = [p["seconds"] for p in points], [p[key] for p in points]
            axes.plot(times, values, "o-", markersize=3, color=colour, label=LABELS[name])
        axes.axhline(end[key], color="0.6", linewidth=0.8, linestyle=":")
        axes.axvline(GOAL_SHARE * end["seconds"], color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlabel("training, seconds of one core")
        axes.set_title(measures[key], loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    return rendered(figure)


def into_page(page: str, name: str, tables: str) -> str:
    """Put the tables between the markers of their name; an empty page gets the markers too.

    Raises:
        SystemExit: the page is not empty and lacks these markers.
    """
    begin, end = f"<!-- measured: {name} -->\n", f"<!-- end: {name} -->"
    page = page or f"{begin}{end}\n"
    if begin not in page or end not in page:
        raise SystemExit(f"the page has no markers for the tables: {begin.strip()} and {end}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{tables}\n{end}{rest.partition(end)[2]}"


def summarised(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Results of the trainings in `out`."""
    numbers: dict[str, Any] = {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in FILES}
    numbers["about"] = about
    numbers["unfinished"] = {
        LABELS[name]: {"seen": seen, "of": about["images"][name]}
        for name in FILES
        if (seen := numbers[name]["points"][-1]["images"]) < 0.99 * about["images"][name]
    }
    numbers["caught_up"] = caught_up(numbers)
    numbers["same_time"] = at_the_same_time(numbers)
    numbers["goals"] = goals(numbers)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared images of 64 px")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and their points")
    parser.add_argument("--treatment", default="Young")
    parser.add_argument(
        "--covariates",
        nargs="*",
        default=["Male", "Smiling", "Eyeglasses", "Blond_Hair", "Blue_Eyes", "Skin_Tone"],
    )
    parser.add_argument("--original-images", type=int, default=16_000)
    parser.add_argument("--our-images", type=int, default=100_000)
    parser.add_argument("--so-far", action="store_true", help="train nothing: tell what is there already")
    parser.add_argument("--limit", type=int, default=200, help="test images that are scored")
    parser.add_argument(
        "--write", type=Path, help="also write PATH.json and PATH.png, and tables into PATH.md"
    )
    parser.add_argument("--page", type=Path, help="the page that the tables go to, in place of PATH.md")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = PreparedData.open(options.data)
    images = {
        "original": options.original_images,
        "ours": options.our_images,
        "short": round(GOAL_SHARE * options.our_images),
    }
    made = configs(data, options.treatment, options.covariates, images)
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = multiprocessing.get_context(START)
    workers = [
        processes.Process(
            target=follow, args=(config, options.out / name, POINTS[name], options.limit), name=name
        )
        for name, config in made.items()
    ]
    if options.so_far:
        workers = []
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := [worker.name for worker in workers if worker.exitcode]:
        raise SystemExit(f"{' and '.join(failed)} did not finish; run the same command again to continue")
    about = {"data": data.name, "scored": options.limit, "images": images, "load": list(os.getloadavg())}
    numbers = summarised(options.out, about)
    print(as_markdown(numbers))
    if options.write is not None:
        page = options.page or options.write.with_suffix(".md")
        write_json(options.write.with_suffix(".json"), numbers)
        told = page.read_text("utf-8") if page.exists() else ""
        write_text(page, into_page(told, options.write.stem, as_markdown(numbers)))
        as_figure(numbers).save(options.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
