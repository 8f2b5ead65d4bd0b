"""Rows of memory: what commands hold at most over ten times as much data, and what a training step holds.

Each command runs in a process of its own, whose memory is read every few milliseconds. What the system counts as
resident holds pages of mapped files, which it takes back when anybody needs them; what was allocated is told apart.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.performance.bench import CPU, NETWORKS, ROOT, Bench, civae_command, run_civae, run_quietly
from benchmarks.performance.steps import LABELS
from civae_core.data import PreparedData
from civae_core.figures.pictures import to_picture
from civae_core.files import write_text
from civae_core.quickstart import quickstart_config
from civae_core.training.device import Compute
from civae_core.training.loop import train
from civae_core.training.memory import peak_memory

PAUSE = 0.005
NO_STATUS = "this system has no /proc"
SAME = 1.1
"""Ten times the data may take so many times the memory, and still count as no growth: labels and names remain."""
GROWTH, STEP = "ten times the data", "one training step"
TINY = """\
data: {{path: {data}, treatment: Young, covariates: [Male, Smiling]}}
model: {{latent: 8, width: 8, stages: [1, 2], layers: 4, prior_hidden: 16}}
train: {{images: {images}, batch_size: 64, checkpoint_every: 1000000, sample_every: 1000000, validate_images: 64}}
"""


@dataclass(frozen=True)
class Sizes:
    """How much data the commands are given, less and more."""

    size: int = 32
    pack: tuple[int, int] = (20_000, 200_000)
    trained: int = 50_000
    evaluated: tuple[int, int] = (1_000, 10_000)
    edited: tuple[int, int] = (1_000, 10_000)


QUICK_SIZES = Sizes(pack=(40, 80), trained=64, evaluated=(4, 8), edited=(4, 8))


@dataclass(frozen=True)
class MemoryRow:
    """Most memory that something held, beside a baseline, in MiB; or why it is not known."""

    section: str
    name: str
    baseline: str
    allocated: float = 0.0
    baseline_allocated: float = 0.0
    resident: float | None = None
    """With pages of mapped files, where that was measured."""
    baseline_resident: float | None = None
    most: float | None = None
    """The ratio of what was allocated that is not to be exceeded."""
    skipped: str | None = None

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"section": self.section, "name": self.name, "baseline": self.baseline}
        if self.skipped is not None:
            return said | {"skipped": self.skipped}
        ratio = self.allocated / self.baseline_allocated
        said |= {"allocated_mib": self.allocated, "baseline_allocated_mib": self.baseline_allocated}
        if self.resident is not None:
            said |= {"resident_mib": self.resident, "baseline_resident_mib": self.baseline_resident}
        said["ratio"] = ratio
        return (
            said
            if self.most is None
            else said | {"goal": {"ratio_at_most": self.most}, "reached": ratio <= self.most}
        )


@dataclass(frozen=True)
class Held:
    """Most MiB of a process: allocated by it, and resident with pages of files."""

    allocated: float
    resident: float


def watched(command: Sequence[str], environment: Mapping[str, str] = {}) -> Held:
    """Runs a command and reads its memory until it ends.

    Raises:
        CalledProcessError: it failed; what it said stands on standard error.
    """
    allocated = resident = 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=said
        ) as process:
            while process.poll() is None:
                found = status_of(process.pid)
                allocated = max(allocated, found.get("RssAnon", 0.0))
                resident = max(resident, found.get("VmHWM", 0.0))
                time.sleep(PAUSE)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read())
            raise subprocess.CalledProcessError(process.returncode, command)
    return Held(round(allocated, 1), round(resident, 1))


def status_of(process: int) -> dict[str, float]:
    """MiB of each memory figure in /proc/PID/status; nothing of a process that has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in fields}


def growth_rows(folder: Path, sizes: Sizes) -> list[MemoryRow]:
    """prepare-data, train, evaluate and counterfactual, each on some and on ten times as much."""
    if not Path("/proc/self/status").exists():
        names = ("prepare-data", "train", "evaluate", "counterfactual")
        return [MemoryRow(GROWTH, name, name, skipped=NO_STATUS) for name in names]
    few, many = (folder / f"pack-{count}" for count in sizes.pack)
    rows = [
        _grown(
            "prepare-data",
            "images packed by one process",
            sizes.pack,
            [_preparing(pack, count, sizes) for pack, count in zip((few, many), sizes.pack, strict=True)],
        )
    ]
    for pack in (few, many):
        write_text(folder / f"{pack.name}.yml", TINY.format(data=pack, images=sizes.trained))
    runs = [folder / f"run-of-{pack.name}" for pack in (few, many)]
    trainings = [
        civae_command(
            "train", "--config", f"{folder}/{pack.name}.yml", "--out", str(run), "--device", "cpu", "--quiet"
        )
        for pack, run in zip((few, many), runs, strict=True)
    ]
    rows.append(_grown("train", f"images prepared, {sizes.trained:,} shown", sizes.pack, trainings))
    rows.append(_grown("evaluate", "test images", sizes.evaluated, *_evaluations(folder, many, sizes)))
    run_civae("export", str(runs[0]), "--quiet")
    for engine in ("torch", "onnx"):
        commands = [_editing(folder, many, runs[0], engine, count) for count in sizes.edited]
        rows.append(_grown(f"counterfactual, {engine}", "photographs in a folder", sizes.edited, commands))
    return rows


def _grown(
    name: str,
    what: str,
    counts: tuple[int, int],
    commands: Sequence[list[str]],
    environment: Mapping[str, str] = {},
) -> MemoryRow:
    few, many = (watched(command, environment) for command in commands)
    return MemoryRow(
        GROWTH,
        f"{name}: {counts[1]:,} {what}",
        f"{counts[0]:,}",
        many.allocated,
        few.allocated,
        many.resident,
        few.resident,
        most=SAME,
    )


def _preparing(out: Path, count: int, sizes: Sizes) -> list[str]:
    command = civae_command("prepare-data", "synthetic:faces", "--n", str(count), "--size", str(sizes.size))
    return [*command, "--truth", "Young=flip", "--workers", "1", "--out", str(out), "--quiet"]


def _evaluations(folder: Path, pack: Path, sizes: Sizes) -> tuple[list[list[str]], dict[str, str]]:
    """Those of evaluate_images.py, with a scorer: its set-up, but on images that are there already."""
    work = folder / "evaluation"
    work.mkdir()
    (work / "data").symlink_to(pack, target_is_directory=True)
    train(quickstart_config("ours", work / "data", 64), work / "run", device="cpu")
    script = str(ROOT / "benchmarks" / "evaluate_images.py")
    environment = {"CIVAE_CACHE": str(work / "cache")}
    commands = [
        [sys.executable, script, "--one", str(work), "--images", str(count)] for count in sizes.evaluated
    ]
    run_quietly(commands[0], **environment)  # trains the scorer, which is not to be part of either
    return commands, environment


def _editing(folder: Path, pack: Path, run: Path, engine: str, count: int) -> list[str]:
    photos = folder / f"photos-{count}"
    if not photos.exists():
        data = PreparedData.open(pack)
        photos.mkdir()
        for row in range(count):
            to_picture(data.images(torch.tensor([row % len(data)]))[0]).save(photos / f"{row:06d}.png")
    out = str(folder / f"edited-{engine}-{count}")
    command = civae_command("counterfactual", str(photos), "--model", str(run), "--treat", "Young=flip")
    return [*command, "--engine", engine, "--device", "cpu", "--out", out, "--quiet"]


def step_memory_rows(bench: Bench) -> list[MemoryRow]:
    """What tensors of one step hold: both networks, and the settings that take less."""
    compute = Compute.choose(CPU)
    parts = min(8, bench.scale.batch)
    ways: dict[str, tuple[str, dict[str, Any]]] = {LABELS[network]: (network, {}) for network in NETWORKS}
    ours, original = ways
    ways[f"ours, train.accumulate: {parts}"] = ("ours", {"train__accumulate": parts})
    ways["ours, train.checkpoint_activations"] = ("ours", {"train__checkpoint_activations": True})
    held = {}
    for name, (network, changes) in ways.items():
        learner, batch = bench.learner(network, compute, **changes)
        learner.step(batch, 0)  # the optimiser's moments are made, and stay
        with peak_memory(CPU) as peak:
            learner.step(batch, 0)
        held[name] = round(peak.bytes / 2**20, 2)
    return [
        MemoryRow(STEP, name, baseline, held[name], held[baseline])
        for name, baseline in ((ours, original), *((name, ours) for name in list(ways)[2:]))
    ]
