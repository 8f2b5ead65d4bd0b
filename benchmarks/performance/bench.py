"""What the measurements use: photographs, prepared images, networks and a model, each made on first use."""

import compileall
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.performance.measure import Call, Plan
from civae_core.config import Config, load_config
from civae_core.data import PreparedData
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import FileReader, Source
from civae_core.data.sources.celeba import celeba_source
from civae_core.engine.onnx_engine import is_installed
from civae_core.synthetic.celeba_tree import IMAGES, write_celeba_tree
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.loop import train
from civae_core.training.setup import assign_roles, make_batches, make_model

ROOT = Path(__file__).parents[2]
NETWORKS = {"ours": "celeba-64-young.yml", "original": "original-64.yml"}
"""Networks whose training step is timed, with the file in configs/ that describes each."""
ROLES = {
    "data.treatment": "Young",
    "data.covariates": ["Male", "Smiling", "Eyeglasses", "Blond_Hair"],
    "data.descendants": [],
}
"""Roles of the built-in faces' attributes, in place of those of CelebA's."""
CPU = torch.device("cpu")
Compiled = Literal["graphs"] | bool
STEADY, STARTS = Plan(), Plan(rounds=9, seconds=60, least_seconds=0)


@dataclass(frozen=True)
class Scale:
    """How much is measured, and at what sizes."""

    plan: Plan = STEADY
    start_plan: Plan = STARTS
    photos: int = 512
    repeats: int = 64
    """How often the photographs are repeated in a folder to be prepared, which makes a sixth of CelebA: starting
    processes and reporting take the same time for any number, and should not dominate."""
    size: int = 64
    large: int = 128
    batch: int = 32
    network: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the network, by dotted key, that replace those of the configs."""
    slow: bool = True
    """Whether to include compiled networks, ONNX graphs and several processes, which are slow at any size."""
    matrix: int = 3072
    """Side of the square matrices whose product a step is compared with."""


QUICK = Scale(
    plan=Plan(rounds=3, seconds=1, least_seconds=0),
    start_plan=Plan(rounds=1, least_seconds=0),
    photos=24,
    repeats=2,
    size=32,
    large=48,
    batch=4,
    network={"model.width": 8, "model.stages": [1, 2], "model.latent": 8},
    slow=False,
    matrix=128,
)
"""Tries everything that can be tried in seconds; its figures mean nothing."""
QUICK_ONLY = "not with --quick"


class Bench:
    """What the measurements use, in a folder, each made once."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale

    @cached_property
    def photos(self) -> list[Path]:
        """JPEGs of built-in faces, at CelebA's size of 178 × 218."""
        write_celeba_tree(self.folder / "celeba", count=self.scale.photos, seed=0, overlap=1.0)
        return sorted((self.folder / "celeba" / IMAGES).glob("*.jpg"))

    def source(self, size: int) -> Source:
        """The photographs as `prepare-data` finds them."""
        assert self.photos
        return celeba_source(self.folder / "celeba", size=size, channels=3, crop=None)

    @cached_property
    def data(self) -> PreparedData:
        return prepared(self.source(self.scale.size), self.folder / "data", 1)

    def config(self, network: str, **changes: Any) -> Config:
        """A network's config from configs/, for the prepared images."""
        given = {"data.path": str(self.data.path), "train.batch_size": self.scale.batch} | ROLES
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        overrides = given | dict(self.scale.network) | changed
        return load_config([ROOT / "configs" / NETWORKS[network]], overrides=overrides)

    def batches(self, compute: Compute, **changes: Any) -> TrainingBatches:
        """Training batches for our network."""
        config = self.config("ours", **changes)
        return make_batches(config, assign_roles(config, self.data), self.data, compute, Processes())

    def learner(
        self, network: str, compute: Compute, compiled: Compiled = False, **changes: Any
    ) -> tuple[Learner, Batch]:
        """A learner as `civae train` would set it up for a network, and a batch for it."""
        config = self.config(network, **changes)
        roles = assign_roles(config, self.data)
        learner = Learner(make_model(config, roles, self.data), config, roles, compute)
        learner.wrap(compiled=compiled, distributed=False)
        return learner, make_batches(config, roles, self.data, compute, Processes()).at(0)

    def step(self, network: str, compute: Compute, compiled: Compiled = False) -> Call:
        """A training step that can be called repeatedly."""
        learner, batch = self.learner(network, compute, compiled)

        def step() -> None:
            with compute.fast_backends():
                learner.step(batch, 0)

        return step

    @cached_property
    def run(self) -> Path:
        """A run of our network after one batch: the speed of its answers does not depend on its weights."""
        never = {"train__checkpoint_every": 10**9, "train__sample_every": 10**9, "train__log_every": 10**9}
        config = self.config("ours", train__images=self.scale.batch, train__validate_images=4, **never)
        train(config, self.folder / "run", device="cpu")
        return self.folder / "run"

    @cached_property
    def lacks_export(self) -> str | None:
        """Write the ONNX graphs beside the run; return why that is impossible, or None."""
        if not self.scale.slow:
            return QUICK_ONLY
        if not is_installed():
            return "onnxruntime is not installed"
        run_civae("export", str(self.run), "--quiet")
        return None


def prepared(source: Source, out: Path, workers: int) -> PreparedData:
    """Prepare a source into a new folder."""
    return prepare(source, out, workers=workers, max_bad=MaxBad("0", count=0)).data


def repeated(source: Source, times: int) -> Source:
    """The source with every photograph `times` times, without further files."""
    table, reader = source.table, source.reader
    assert isinstance(reader, FileReader)
    names = table.file_names * times
    return replace(
        source,
        table=replace(table, file_names=names, values_NA=np.tile(table.values_NA, (times, 1))),
        splits_N=np.tile(source.splits_N, times),
        reader=replace(reader, file_names=names),
    )


def civae_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "civae_cli", *arguments]


def compile_as_installed() -> None:
    """Compile this tree's modules, as pip does on installation.

    Otherwise, if Python may not write byte code, every start would include the time to compile them.
    """
    for package in ("civae_cli", "civae_core"):
        compileall.compile_dir(ROOT / package, quiet=1)


def run_civae(*arguments: str, **environment: str) -> None:
    """Run `civae …` of this tree in a separate process; its output is dropped unless it fails."""
    run_quietly(civae_command(*arguments), **environment)


def run_quietly(command: list[str], **environment: str) -> None:
    """Run a command; if it fails, show its stderr and raise CalledProcessError."""
    found = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if found.returncode:
        sys.stderr.write(found.stderr)
        found.check_returncode()
