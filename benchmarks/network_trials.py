"""Train variants of our network for about the same time each: is any of them better at equal compute?

    python benchmarks/network_trials.py --data DATA --out OUT [--seconds 180 | --images N] [--seeds 0 1 2] [--jobs 2]
        [--write docs/network.md]

Trains `configs/quickstart.yml` with one part of its network replaced at a time, each on one thread, for as many
images as the time allows at the pace of its first steps, or for the given number; so the learning rate falls to 0 for
all. Then scores held-out images: PSNR of reconstructions (τ = 0) and the relative effect error (τ = 1). Prints a
table with arithmetic and parameters, as mean ± standard deviation if there are several seeds; `--write` puts it
between the markers of a page. Trainings whose results are in OUT already are not repeated.
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.against_original import CONFIGS, CPU, ONLY_TRAINED, gflop_per_image, into_page, score
from civae_core.config import Config, load_config
from civae_core.data import PreparedData
from civae_core.files import write_json, write_text
from civae_core.model import blocks, decoder
from civae_core.model.blocks import ACTIVATIONS, Activation, FiLM, Norm, ResidualBlock, make_norm
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.loop import train
from civae_core.training.setup import assign_roles, make_batches, make_model

WARM, TIMED = 3, 12
"""Steps before and during the measurement of the pace."""
MARK = "network-trials"
START = "spawn"
"""Start method of the processes: the parts that one trial replaces do not reach another."""


class LargeKernel(nn.Module):
    """A block like ConvNeXt's (Liu et al. 2022): depthwise 7×7, 1×1 to four times the width, 1×1 back."""

    def __init__(self, channels: int, condition: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels)
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm2 = make_norm(norm, channels)
        self.film = FiLM(condition, channels) if condition else None
        self.widen = nn.Conv2d(channels, 4 * channels, 1)
        self.narrow = nn.Conv2d(4 * channels, channels, 1)
        self.activation = ACTIVATIONS[activation]()
        for parameter in self.narrow.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        r_BCHW = self.norm2(self.depthwise(self.norm1(h_BCHW)))
        if self.film is not None:
            r_BCHW = self.film(r_BCHW, condition_BF)
        result: Tensor = h_BCHW + self.narrow(self.activation(self.widen(r_BCHW)))
        return result


class Attentive(ResidualBlock):
    """Our block, followed by self-attention with four heads where the resolution is 8×8."""

    width = 64
    """Channels of the stage whose resolution is 8×8 at 64 px."""

    def __init__(self, channels: int, condition: int, norm: Norm, activation: Activation) -> None:
        super().__init__(channels, condition, norm, activation)
        if channels == self.width:
            self.before = make_norm(norm, channels)
            self.seen = nn.Conv2d(channels, 3 * channels, 1)
            self.told = nn.Conv2d(channels, channels, 1)
            for parameter in self.told.parameters():
                nn.init.zeros_(parameter)

    def forward(self, h_BCHW: Tensor, condition_BF: Tensor) -> Tensor:
        h_BCHW = super().forward(h_BCHW, condition_BF)
        if h_BCHW.shape[1] != self.width:
            return h_BCHW
        query_BNPC, key_BNPC, value_BNPC = (
            part.unflatten(1, (4, -1)).flatten(3).transpose(2, 3)
            for part in self.seen(self.before(h_BCHW)).chunk(3, dim=1)
        )
        mixed_BNPC = F.scaled_dot_product_attention(query_BNPC, key_BNPC, value_BNPC)
        result: Tensor = h_BCHW + self.told(mixed_BNPC.transpose(2, 3).reshape(h_BCHW.shape))
        return result


class NearestUpsample(nn.Module):
    """[B, C, H, W] to [B, C', 2H, 2W] by nearest-neighbour upsampling and a 3×3 convolution, as in the original."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(h_BCHW, scale_factor=2, mode="nearest"))
        return result


@dataclass(frozen=True)
class Trial:
    """Our network with something replaced."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the config, by dotted key."""
    block: type[nn.Module] = ResidualBlock
    """What replaces the basic block."""
    upsample: type[nn.Module] = decoder.Upsample


TRIALS = {
    "ours": Trial(),
    "inverted bottlenecks, depthwise 3×3": Trial({"model.block": "inverted"}),
    "ConvNeXt's blocks, depthwise 7×7": Trial(block=LargeKernel),
    "attention at 8×8": Trial(block=Attentive),
    "half the width at the first stage": Trial({"model.width": 8, "model.stages": [1, 4, 8, 16]}),
    "twice the width at the first stage": Trial({"model.width": 32, "model.stages": [1, 1, 2, 4]}),
    "two blocks in each stage": Trial({"model.blocks": 2}),
    "repeating and 3×3 in place of depth-to-space": Trial(upsample=NearestUpsample),
}


def seconds_per_image(config: Config, data: PreparedData) -> float:
    """CPU time of a training step per image."""
    roles = assign_roles(config, data)
    compute = Compute.choose(CPU, "fp32", False)
    learner = Learner(make_model(config, roles, data), config, roles, compute)
    batches = make_batches(config, roles, data, compute, Processes())
    begun = 0.0
    for step in range(WARM + TIMED):
        if step == WARM:
            begun = time.process_time()
        learner.step(batches.at(step * config.train.batch_size), 0)
    return (time.process_time() - begun) / TIMED / config.train.batch_size


def tried(
    name: str, seed: int, data_path: Path, out: Path, seconds: float, images: int | None, limit: int
) -> None:
    """Train one of the trials on `images` images, or else for about `seconds`, and save its scores."""
    torch.set_num_threads(1)
    trial = TRIALS[name]
    blocks.BLOCKS["basic"] = trial.block
    decoder.Upsample = trial.upsample  # type: ignore[misc, assignment]
    data = PreparedData.open(data_path)
    changed = {"data.path": str(data_path), "train.seed": seed, **ONLY_TRAINED, **trial.settings}
    config = load_config([CONFIGS / "quickstart.yml"], overrides=changed)
    batch = config.train.batch_size
    if images is None:
        images = max(int(seconds / seconds_per_image(config, data)) // batch, 1) * batch
    config = config.model_copy(update={"train": config.train.model_copy(update={"images": images})})
    gflop, parameters = gflop_per_image(config, data)
    run = kept_in(out, name, seed)
    shutil.rmtree(run, ignore_errors=True)  # left by a trial that was stopped
    begun = time.process_time()
    train(config, run, device="cpu", resume="never")
    spent = time.process_time() - begun
    error, effect_error = score(run, data, limit)
    cost = {"images": images, "seconds": spent, "gflop_per_image": gflop, "parameters": parameters}
    scores = {"psnr": -10 * math.log10(error), "relative_effect_error": effect_error}
    write_json(run.with_suffix(".json"), {"name": name, "seed": seed} | cost | scores)


def kept_in(out: Path, name: str, seed: int) -> Path:
    """The folder of a training; its scores are saved beside it."""
    return out / f"{list(TRIALS).index(name)}-{seed}"


def spread(values: list[float], digits: int) -> str:
    """Mean, and standard deviation if there are several values."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def as_markdown(trained: list[dict[str, Any]]) -> str:
    """A table of each trial's scores over its seeds, and its difference in PSNR from the first trial."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in trained:
        by_name.setdefault(row["name"], []).append(row)
    ours = statistics.fmean(row["psnr"] for row in next(iter(by_name.values())))
    lines = [
        "| network | parameters | GFLOP an image | images | CPU time | PSNR (dB) | against ours | effect error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for position, (name, rows) in enumerate(by_name.items()):
        one, psnr = rows[0], [row["psnr"] for row in rows]
        apart = f"{statistics.fmean(psnr) - ours:+.2f}" if position else ""
        lines.append(
            f"| {name} | {one['parameters']:,} | {one['gflop_per_image']:.2f} | {one['images']:,} | "
            f"{statistics.fmean(row['seconds'] for row in rows):.0f} s | {spread(psnr, 2)} | {apart} | "
            f"{spread([row['relative_effect_error'] for row in rows], 3)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared faces of 64 px")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and what they came to")
    parser.add_argument("--seconds", type=float, default=180, help="CPU time of each training")
    parser.add_argument("--images", type=int, help="images of each training, in place of a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--limit", type=int, default=200, help="test images that are scored")
    parser.add_argument("--only", nargs="*", choices=TRIALS, default=list(TRIALS), metavar="NAME")
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    files = {
        (name, seed): kept_in(options.out, name, seed).with_suffix(".json")
        for seed in options.seeds
        for name in TRIALS
        if name in options.only
    }
    work = [
        (*asked, options.data, options.out, options.seconds, options.images, options.limit)
        for asked, file in files.items()
        if not file.exists()
    ]
    with multiprocessing.get_context(START).Pool(options.jobs, maxtasksperchild=1) as pool:
        pool.starmap(tried, work, chunksize=1)
    table = as_markdown([json.loads(file.read_text("utf-8")) for file in files.values()])
    print(table)
    if options.write is not None:
        told = options.write.read_text("utf-8") if options.write.exists() else ""
        write_text(options.write, into_page(told, MARK, table))


if __name__ == "__main__":
    main()
