"""Rows for memory: the peak of commands on some data and on ten times as much, and that of a training step.

Each command runs in a separate process, whose memory is read every few milliseconds. What the system counts as
resident includes pages of mapped files, which it takes back when needed; so allocated memory is reported separately.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.performance.bench import CPU, NETWORKS, ROOT, Bench, civae_command, run_civae, run_quietly
from benchmarks.performance.steps import LABELS
from civae_core.data import PreparedData
from civae_core.figures.pictures import to_picture
from civae_core.files import write_json, write_text
from civae_core.quickstart import quickstart_config
from civae_core.training.device import Compute
from civae_core.training.loop import train
from civae_core.training.memory import peak_memory

PAUSE = 0.005
NO_STATUS = "this system has no /proc"
SAME = 1.1
"""Ten times the data may take this many times the memory and still count as no growth: labels and names are kept."""
GROWTH, STEP = "ten times the data", "one training step"
TINY = """\
data: {{path: {data}, treatment: Young, covariates: [Male, Smiling]}}
model: {{latent: 8, width: 8, stages: [1, 2], layers: 4, prior_hidden: 16}}
train: {{images: {images}, batch_size: 64, checkpoint_every: 1000000, sample_every: 1000000, validate_images: 64}}
"""


@dataclass(frozen=True)
class Sizes:
    """Numbers of images that the commands are given: fewer, and more."""

    size: int = 32
    pack: tuple[int, int] = (20_000, 200_000)
    trained: int = 50_000
    evaluated: tuple[int, int] = (1_000, 10_000)
    edited: tuple[int, int] = (1_000, 10_000)


QUICK_SIZES = Sizes(pack=(40, 80), trained=64, evaluated=(4, 8), edited=(4, 8))


@dataclass(frozen=True)
class MemoryRow:
    """Peak memory of something and of a baseline, in MiB; or why it is not known."""

    section: str
    name: str
    baseline: str
    allocated: float = 0.0
    baseline_allocated: float = 0.0
    resident: float | None = None
    """Including pages of mapped files, if that was measured."""
    baseline_resident: float | None = None
    most: float | None = None
    """The ratio of allocated memory that should not be exceeded."""
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
    """Peak memory of a process in MiB: allocated by it, and resident including pages of files."""

    allocated: float
    resident: float


def watched(command: Sequence[str], environment: Mapping[str, str] = {}) -> Held:
    """Run a command and read its memory until it ends.

    Raises:
        CalledProcessError: it failed; its standard error is shown on ours.
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
    """MiB of each memory figure in /proc/PID/status; empty if the process has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in fields}


def growth_rows(folder: Path, sizes: Sizes) -> list[MemoryRow]:
    """Rows for prepare-data, train, counterfactual and evaluate, each on some data and on ten times as much.

    Results are saved in the folder as they are made, so that a stopped measurement can continue.
    """
    if not Path("/proc/self/status").exists():
        names = ("prepare-data", "train", "counterfactual", "evaluate")
        return [MemoryRow(GROWTH, name, name, skipped=NO_STATUS) for name in names]
    growth = Growth(folder, sizes)
    rows = [growth.preparing(), growth.training()]
    rows += [growth.editing(engine) for engine in ("torch", "onnx")]
    return [*rows, growth.evaluating()]


@dataclass(frozen=True)
class Growth:
    """Commands in a folder, each on little data and on much."""

    folder: Path
    sizes: Sizes

    @property
    def packs(self) -> tuple[Path, Path]:
        few, many = (self.folder / f"pack-{count}" for count in self.sizes.pack)
        return few, many

    @property
    def runs(self) -> tuple[Path, Path]:
        few, many = (self.folder / f"run-of-{pack.name}" for pack in self.packs)
        return few, many

    def preparing(self) -> MemoryRow:
        def command(count: int, out: Path) -> list[str]:
            words = civae_command(
                "prepare-data", "synthetic:faces", "--n", str(count), "--size", str(self.sizes.size)
            )
            return [*words, "--truth", "Young=flip", "--workers", "1", "--out", str(out), "--quiet"]

        def watch() -> list[Held]:
            for out in self.packs:
                shutil.rmtree(out, ignore_errors=True)
            return [
                watched(command(count, out)) for count, out in zip(self.sizes.pack, self.packs, strict=True)
            ]

        return self._row("prepare-data", "images packed by one process", self.sizes.pack, watch)

    def training(self) -> MemoryRow:
        def command(pack: Path, run: Path) -> list[str]:
            config = self.folder / f"{pack.name}.yml"
            write_text(config, TINY.format(data=pack, images=self.sizes.trained))
            words = civae_command("train", "--config", str(config), "--out", str(run))
            return [*words, "--device", "cpu", "--resume", "never", "--quiet"]

        def watch() -> list[Held]:
            for run in self.runs:
                shutil.rmtree(run, ignore_errors=True)
            return [watched(command(pack, run)) for pack, run in zip(self.packs, self.runs, strict=True)]

        return self._row("train", f"images prepared, {self.sizes.trained:,} shown", self.sizes.pack, watch)

    def editing(self, engine: str) -> MemoryRow:
        def command(count: int) -> list[str]:
            out = self.folder / f"edited-{engine}-{count}"
            words = civae_command("counterfactual", str(self._photos(count)), "--model", str(self.runs[0]))
            return [*words, "--treat", "Young=flip", "--engine", engine, "--out", str(out), "--quiet"]

        def watch() -> list[Held]:
            if engine == "onnx":
                run_civae("export", str(self.runs[0]), "--quiet")
            return [watched([*command(count), "--device", "cpu"]) for count in self.sizes.edited]

        return self._row(f"counterfactual, {engine}", "photographs in a folder", self.sizes.edited, watch)

    def evaluating(self) -> MemoryRow:
        """As in evaluate_images.py, with a scorer, but on images that exist already."""
        work = self.folder / "evaluation"
        script = str(ROOT / "benchmarks" / "evaluate_images.py")
        cache = {"CIVAE_CACHE": str(work / "cache")}

        def command(count: int) -> list[str]:
            return [sys.executable, script, "--one", str(work), "--images", str(count)]

        def watch() -> list[Held]:
            if not work.exists():
                work.mkdir()
                (work / "data").symlink_to(self.packs[1], target_is_directory=True)
            train(quickstart_config("ours", work / "data", 64), work / "run", device="cpu")
            run_quietly(command(self.sizes.evaluated[0]), **cache)  # trains the scorer before both
            return [watched(command(count), cache) for count in self.sizes.evaluated]

        return self._row("evaluate", "test images", self.sizes.evaluated, watch)

    def _photos(self, count: int) -> Path:
        photos = self.folder / f"photos-{count}"
        photos.mkdir(exist_ok=True)
        data = PreparedData.open(self.packs[1])
        for row in range(len(list(photos.iterdir())), count):
            to_picture(data.images(torch.tensor([row % len(data)]))[0]).save(photos / f"{row:06d}.png")
        return photos

    def _row(
        self, name: str, what: str, counts: tuple[int, int], watch: Callable[[], list[Held]]
    ) -> MemoryRow:
        """The row of what `watch` finds, or has found in this folder before."""
        file = self.folder / "held.json"
        held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        key = f"{name}: {counts[1]:,} {what}"
        if key not in held:
            write_json(file, held := held | {key: [asdict(found) for found in watch()]})
        few, many = (Held(**found) for found in held[key])
        sizes = (many.allocated, few.allocated, many.resident, few.resident)
        return MemoryRow(GROWTH, key, f"{counts[0]:,}", *sizes, most=SAME)


def step_memory_rows(bench: Bench) -> list[MemoryRow]:
    """Rows for the tensors of one step: both networks, and the settings that take less memory."""
    compute = Compute.choose(CPU)
    parts = min(8, bench.scale.batch)
    ways: dict[str, tuple[str, dict[str, Any]]] = {LABELS[network]: (network, {}) for network in NETWORKS}
    ours, original = ways
    ways[f"ours, train.accumulate: {parts}"] = ("ours", {"train__accumulate": parts})
    ways["ours, train.checkpoint_activations"] = ("ours", {"train__checkpoint_activations": True})
    held = {}
    for name, (network, changes) in ways.items():
        learner, batch = bench.learner(network, compute, **changes)
        learner.step(batch, 0)  # creates the optimiser's moments, which stay
        with peak_memory(CPU) as peak:
            learner.step(batch, 0)
        held[name] = round(peak.bytes / 2**20, 2)
    return [
        MemoryRow(STEP, name, baseline, held[name], held[baseline])
        for name, baseline in ((ours, original), *((name, ours) for name in list(ways)[2:]))
    ]
