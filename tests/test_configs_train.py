"""The CelebA configs train on data with CelebA's forty columns, and only on the columns they say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from civae_core.celeba import ATTRIBUTES, CAUSED_BY
from civae_core.config import Config, load_config
from civae_core.data.images import Preprocessing
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Batch, Source
from civae_core.data.tables import Table
from civae_core.model.stored import read_card
from civae_core.training import pairing
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.preview import preview

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.yml") if path.name.startswith(("celeba", "original")))
AT_64 = [path for path in FILES if "64" in path.name]
COUNT, TRAIN = 200, 180
STEPS, BATCH = 2, 2

MakeData = Callable[..., Path]


@dataclass(frozen=True)
class NoiseReader:
    """Noise images; a row's is the same in any stretch."""

    size: int

    def read(self, rows: range) -> Batch:
        pixels = [np.random.default_rng(row).integers(0, 256, (3, self.size, self.size)) for row in rows]
        return Batch(np.array(rows, np.int64), np.stack(pixels).astype(np.uint8))


@pytest.fixture(scope="module")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> MakeData:
    """Prepares noise images with random labels; those in `flipped` are the opposite of what they were."""
    made: dict[tuple[int, frozenset[str]], Path] = {}

    def make(size: int, flipped: frozenset[str] = frozenset()) -> Path:
        if (size, flipped) not in made:
            labels_NA = np.random.default_rng(0).integers(0, 2, (COUNT, len(ATTRIBUTES))).astype(np.float32)
            turned = [ATTRIBUTES.index(name) for name in flipped]
            labels_NA[:, turned] = 1 - labels_NA[:, turned]
            splits_N = np.repeat(np.arange(3, dtype=np.uint8), [TRAIN, 10, COUNT - TRAIN - 10])
            table = Table(
                file_names=[f"{row:06d}.jpg" for row in range(COUNT)],
                names=ATTRIBUTES,
                kinds=("binary",) * len(ATTRIBUTES),
                values_NA=labels_NA,
                splits_N=splits_N,
                notes=[],
            )
            source = Source(
                name="noise",
                identity={"kind": "noise", "flipped": sorted(flipped)},
                table=table,
                splits_N=splits_N,
                preprocessing=Preprocessing(size=size),
                reader=NoiseReader(size),
            )
            out = tmp_path_factory.mktemp("noise") / "data"
            made[size, flipped] = prepare(source, out, workers=1, max_bad=MaxBad.parse("0")).data.path
        return made[size, flipped]

    return make


def size_of(file: Path) -> int:
    return int(file.name.split("-")[1].removesuffix(".yml"))


def short(file: Path, data: Path) -> Config:
    """The config, trained for two steps of two images on one CPU core."""
    settings = {
        "train.images": STEPS * BATCH,
        "train.batch_size": BATCH,
        "train.validate_images": BATCH,
        "train.precision": "fp32",
    }
    return load_config([file], [f"{k}={v}" for k, v in settings.items()], {"data.path": str(data)})


def trained_weights(file: Path, data: Path, out: Path) -> dict[str, torch.Tensor]:
    train(short(file, data), out, device="cpu")
    return load_file(out / "checkpoints" / "last" / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dry_run_takes_one_step(file: Path, make_data: MakeData, tmp_path: Path) -> None:
    found = preview(short(file, make_data(size_of(file))), tmp_path / "run", device="cpu")
    assert found.loss is not None and np.isfinite(found.loss)
    assert (found.training_images, found.validation_images) == (TRAIN, BATCH)


@pytest.mark.parametrize("file", AT_64, ids=lambda file: file.stem)
def test_it_trains_on_its_inputs_alone(
    file: Path, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)  # it changes no weight
    monkeypatch.setattr(pairing, "BATCH", BATCH)
    config = load_config([file])
    size, inputs = size_of(file), {*config.data.treatment, *config.data.covariates}
    weights = trained_weights(file, make_data(size), tmp_path / "run")
    roles = read_card(tmp_path / "run" / "checkpoints" / "last" / "model.safetensors").roles
    assert {a.name for a in roles.inputs} == inputs
    assert {a.name for a in roles.descendants} == set(config.data.descendants)
    if config.objective == "intact":
        assert not inputs & CAUSED_BY[config.data.treatment[0]]
    unseen = frozenset(ATTRIBUTES) - inputs
    assert same(weights, trained_weights(file, make_data(size, unseen), tmp_path / "others"))
    one_input = frozenset({config.data.covariates[0]})
    assert not same(weights, trained_weights(file, make_data(size, one_input), tmp_path / "seen"))
