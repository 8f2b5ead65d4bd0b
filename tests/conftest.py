"""Small networks, attribute tables, prepared faces and trained runs that tests of several folders share."""

import os

# On a GPU, autograd starts threads, after which no fork can train. So the tests and what they start see none, unless
# they are told to. This is set before PyTorch is imported, as it may look once only.
if os.environ.get("CIVAE_TEST_CUDA") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import atexit
import functools
import gc
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, Phase, settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from order import shuffled
from torch import nn

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from civae_core.data import PreparedData
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.evaluation import cycles
from civae_core.figures import pictures
from civae_core.model import IntactVAE
from civae_core.model.familiar import Familiarity
from civae_core.model.pairing import Pairing
from civae_core.progress import set_quiet
from civae_core.training import pairing
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train as run_training
from civae_core.yardstick import Yardstick, YardstickCard, save_yardstick
from civae_core.yardstick.instrument import Networks

# What is imported stays; searching all of it for garbage, again and again, took a tenth of the time.
gc.disable()

# One thread here and in subprocesses, so that sums have one order and several test runs can share a machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# PyTorch's fake tensors, with which it compiles and exports, pretend that there are CUDA devices. If they come before
# a process's first backward pass, that pass starts a thread for each, after which no fork of the process can train.
torch.ones((), requires_grad=True).backward()


def _leave_blank(canvas: FigureCanvasAgg) -> None:
    """Draw nothing, unless it is for a file whose size depends on what is drawn."""
    if canvas.is_saving():
        FULL[FigureCanvasAgg, "draw"](canvas)
    else:
        canvas.renderer = canvas.get_renderer()


# Uniform repetition took most of the time of every short training and every evaluation, and drawing most of every
# report; so both are cut down here. Tests that are about them, and tests that compare with processes that import
# everything anew, use `in_full`.
FEWER: dict[tuple[Any, str], Any] = {
    (pairing, "BATCH"): 8,
    (pairing, "CHECKED"): 1,
    (cycles, "CYCLES"): {"1": 1, "10": 1},
    (cycles, "MOST_IMAGES"): 8,
    (pictures, "COMPRESSION"): 1,
    (FigureCanvasAgg, "draw"): _leave_blank,
}
FULL = {place: getattr(*place) for place in FEWER}
for (module, name), value in FEWER.items():
    setattr(module, name, value)

# Tests create and delete many small files and wait for each to be on the disk. Memory serves as well, if it has room
# for what failed tests leave behind.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Scorers are cached in one folder for all processes that share the tests, never in the cache of the user.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["CIVAE_CACHE"] = tempfile.mkdtemp(prefix="civae-tests-")
    atexit.register(shutil.rmtree, os.environ["CIVAE_CACHE"], ignore_errors=True)

# The suite tries the same inputs every time, in the same order. benchmarks/fuzz.py runs its tests with many other
# inputs, and benchmarks/repeat_tests.py with as many other inputs in another order.
_examples, _seed = os.environ.get("CIVAE_FUZZ_EXAMPLES"), os.environ.get("CIVAE_TEST_SEED")
settings.register_profile(
    "civae",
    derandomize=_examples is None and _seed is None,
    max_examples=int(_examples or 40),
    deadline=None,
    database=None,
    phases=[phase for phase in Phase if phase != Phase.explain],  # takes minutes, only for hints
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
settings.load_profile("civae")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _seed is not None:
        items[:] = shuffled(items, _seed)


YOUNG, MALE = Attribute("Young", "binary"), Attribute("Male", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A path for what takes seconds to make: the first test process that needs it makes it, and all read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def of(name: str, make: Callable[[Path], object]) -> Path:
        made = shared / f"made-{name}"
        with FileLock(f"{made}.lock"):
            if not Path(f"{made}.done").exists():
                shutil.rmtree(made, ignore_errors=True)  # half made, if making it failed for an earlier test
                make(made)
                Path(f"{made}.done").touch()
        return made

    return of


@pytest.fixture(autouse=True)
def _as_if_alone() -> None:
    """Shield each test from earlier ones: from what they drew, and from commands that they ran with --quiet."""
    set_quiet(False)
    torch.manual_seed(0)


@pytest.fixture
def in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat and draw everything as for users."""
    for (module, name), value in FULL.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def roles() -> AttributeRoles:
    """One binary treatment; one binary and one continuous covariate."""
    return AttributeRoles(treatments=(YOUNG,), covariates=(MALE, AGE))


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A config of a network small enough for tests; keyword arguments go to the section named."""

    def make(
        objective: str = "intact",
        model: dict[str, Any] | None = None,
        loss: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
    ) -> Config:
        small = {"latent": 4, "width": 8, "stages": [1, 2], "layers": 4, "prior_hidden": 16}
        return Config(
            objective=objective,
            data=DataConfig(path="data", treatment=["Young"], covariates=["Male", "Age"]),
            model=ModelConfig(**small | (model or {})),
            loss=LossConfig(**loss or {}),
            train=TrainConfig(**{"batch_size": 6, "lr_warmup": 0} | (train or {})),
        )

    return make


@pytest.fixture
def make_model(roles: AttributeRoles, make_config: Callable[..., Config]) -> Callable[..., IntactVAE]:
    """A small network with seeded weights; `perturbed` moves every weight off its initial value, FiLM's zeros too."""

    def make(
        size: int = 16,
        channels: int = 3,
        perturbed: bool = False,
        assigned: AttributeRoles = roles,
        seed: int = 0,
        **model: Any,
    ) -> IntactVAE:
        config = make_config(model={"prior": "xt"} | model).model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = IntactVAE(config, assigned, size, channels).eval()
            if perturbed:
                shake(built)
        return built

    return make


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Adds noise of standard deviation 0.1 to every parameter, and to the angles of rotations."""
    angles = [part.free_TLL for part in module.modules() if isinstance(part, Pairing)]
    for parameter in (*module.parameters(), *angles):
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.fixture
def photos(roles: AttributeRoles) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Images in [0,1] with raw covariates and treatments of `roles`: (y_BCHW, x_BX, t_BT)."""

    def make(
        count: int = 4, size: int = 16, channels: int = 3, seed: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y_BCHW = torch.rand(count, channels, size, size, generator=generator)
        male_B = (torch.rand(count, generator=generator) < 0.5).float()
        age_B = 20 + 40 * torch.rand(count, generator=generator)
        t_BT = (torch.arange(count) % 2).float()[:, None]
        return y_BCHW, torch.stack([male_B, age_B], dim=1), t_BT

    return make


@pytest.fixture(scope="session")
def faces(made_once: MadeOnce) -> PreparedData:
    """300 prepared faces at 32 px, of which 240 train; the truth under Young=flip is known for the others."""

    def make(out: Path) -> None:
        truths = [TruthSpec("Young=flip", {"Young": "flip"})]
        source = faces_source(count=300, seed=0, overlap=0.5, truths=truths, size=32, channels=3)
        prepare(source, out, workers=1, max_bad=MaxBad.parse("0"))

    return PreparedData.open(made_once("faces", make))


@pytest.fixture(scope="session")
def tiny_settings(faces: PreparedData) -> dict[str, Any]:
    """Settings of a run on `faces` that takes a second, by dotted key."""
    return {
        "data.path": str(faces.path),
        "data.treatment": ["Young"],
        "data.covariates": ["Male", "Skin_Tone"],
        "data.descendants": ["Gray_Hair"],
        "model.latent": 16,
        "model.width": 8,
        "model.stages": [1, 2],
        "model.layers": 4,
        "model.prior_hidden": 16,
        "train.images": 512,
        "train.batch_size": 32,
        "train.lr_warmup": 64,
        "train.log_every": 128,
        "train.checkpoint_every": 256,
        "train.sample_every": 512,
        "train.validate_images": 16,
        "train.pairing_images": 16,
        "train.ema_halflife": 200,
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_settings: dict[str, Any]) -> Callable[..., Config]:
    """A config from `tiny_settings`, changed by dotted key."""

    def make(changes: dict[str, Any] | None = None) -> Config:
        nested: dict[str, Any] = {}
        for key, value in (tiny_settings | (changes or {})).items():
            section, _, name = key.partition(".")
            if name:
                nested.setdefault(section, {})[name] = value
            else:
                nested[section] = value
        return Config.model_validate(nested)

    return make


@pytest.fixture(scope="session")
def trained(tiny_config: Callable[..., Config], made_once: MadeOnce) -> Path:
    """The folder of a finished run of `tiny_config`; only to be read."""
    return made_once("run", lambda out: run_training(tiny_config(), out, device="cpu"))


@pytest.fixture
def small_scorer(tmp_path: Path) -> Path:
    """The file of an untrained scorer of grey pictures of 16 px, which fits none of the shared data."""
    card = YardstickCard(
        attributes=(YOUNG,),
        size=16,
        channels=1,
        data={"name": "small pictures", "fingerprint": "0" * 64},
        roles={"treatments": ["Young"]},
        images=0,
        seed=0,
        photos={},
        blurred={},
    )
    save_yardstick(Yardstick(Networks(16, 1, 1).eval(), card), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.fixture
def no_sample_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip sample grids: they change no weight, and drawing them takes longer than training here."""
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Make all images NaN in the batches whose position a predicate picks."""
    real = TrainingBatches.at

    def install(is_bad: Callable[[int], bool]) -> None:
        def at(batches: TrainingBatches, images_seen: int) -> Batch:
            batch = real(batches, images_seen)
            nan = torch.full_like(batch.y_BCHW, torch.nan)
            return replace(batch, y_BCHW=nan) if is_bad(images_seen) else batch

        monkeypatch.setattr(TrainingBatches, "at", at)

    return install


@pytest.fixture(scope="session")
def quick_exporter() -> None:
    """PyTorch's exporter, made to read its five hundred operators once, not for each graph: a fifth of its time."""
    pytest.importorskip("onnxscript")
    # Other versions of PyTorch keep them elsewhere, and take their usual time.
    with suppress(ImportError, AttributeError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="session")
def exported(trained: Path, made_once: MadeOnce, quick_exporter: None) -> Path:
    """A folder with the model of `trained` and its ONNX export beside it; only to be read.

    It has only the functions that answers need: tracing the networks on their own would take as long again.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def make(folder: Path) -> None:
        from civae_core.export import onnx_files
        from civae_core.export.graphs import functions_of
        from civae_core.model.stored import load_model, save_model

        folder.mkdir()
        stored = load_model(trained)
        # Held-out images would set this limit if a short run had enough of them; no picture exceeds this one.
        card = replace(stored.card, familiarity=Familiarity(0.5, 1.0, 0.99, 256, "valid"))
        save_model(stored.model, card, folder / "model.safetensors")
        needed = ("abduct", "predict", "draw", "predictor")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx_files, "functions_of", lambda *of: {n: functions_of(*of)[n] for n in needed})
            onnx_files.export_onnx(load_model(folder))

    return made_once("exported", make)
