"""civae train as typed: exit codes, streams, and a process killed in the middle."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from civae_cli.app import app, main
from civae_core.config import dump_config
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.training.learner import Learner

MakeConfig = Callable[..., Config]

SHORT = {"train.images": 64, "train.batch_size": 16, "train.validate_images": 4, "train.checkpoint_every": 32}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments), "--device", "cpu"])


@pytest.fixture
def write_config(tiny_config: MakeConfig, tmp_path: Path) -> Callable[..., Path]:
    """Writes tiny.yml with some settings changed."""

    def write(**changes: object) -> Path:
        file = tmp_path / "tiny.yml"
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        file.write_text(dump_config(tiny_config(SHORT | dotted)), encoding="utf-8")
        return file

    return write


def assert_same_bits(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "state.safetensors"):
        first, second = (load_file(path / "checkpoints" / "last" / name) for path in (one, other))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_the_run_is_named_on_stdout_and_the_rest_on_stderr(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    result = run("--config", write_config(), "--out", tmp_path / "run", "--set", "train.images=32")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "training to 32 images on cpu, fp32" in result.stderr
    assert "train: 32/32 images (100 %)" in result.stderr
    assert "on cpu, fp32" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_sample_grids")
def test_json_and_quiet(write_config: Callable[..., Path], tmp_path: Path) -> None:
    file = write_config()
    result = run("--config", file, "--out", tmp_path / "run", "--stop-at", "32", "--json", "-q")
    assert json.loads(result.stdout) == {"run": str(tmp_path / "run"), "images_seen": 32, "finished": False}
    assert result.stderr == ""


@pytest.mark.usefixtures("no_sample_grids")
def test_without_out_the_run_is_named_after_the_config(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--config", write_config(), "--stop-at", "16")
    assert result.stdout == f"{Path('runs') / 'tiny'}\n"
    assert (tmp_path / "runs" / "tiny" / "config.yml").is_file()


@pytest.mark.usefixtures("no_sample_grids")
def test_data_wins_over_the_config(
    write_config: Callable[..., Path], tmp_path: Path, faces: PreparedData
) -> None:
    file = write_config(data__path="nowhere")
    assert run("--config", file, "--out", tmp_path / "run").exit_code == 3
    result = run("--config", file, "--out", tmp_path / "run", "--data", faces.path, "--stop-at", "16")
    assert result.exit_code == 0


def test_a_dry_run_writes_nothing(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config()
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    result = run("--config", file, "--dry-run")
    assert result.exit_code == 0
    assert "240 training and 4 validation images" in result.stdout
    facts = json.loads(run("--config", file, "--dry-run", "--json").stdout)
    assert facts["parameters"] > 10_000
    assert (facts["images_from"], facts["images_to"]) == (0, 64)
    facts = json.loads(run("--config", file, "--dry-run", "--json", "--stop-at", "32").stdout)
    assert facts["images_to"] == 32
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "train.lrr=1"], 2, "train.lrr: unknown key (did you mean train.lr?)"),
        (["--set", "train.lr=fast"], 2, "train.lr"),
        (["--set", "data.treatment=[Yuong]"], 2, "'Yuong' (did you mean Young?)"),
        (["--set", "data.covariates=[Young]"], 2, "cannot be both in treatment and in covariates"),
        (["--set", "model.stages=[1,1,1,1,1,1]"], 2, "divisible by 64"),
        (["--set", "loss.weight_cap=0.5"], 2, "loss.weight_cap: should be at least 1.0, not 0.5"),
        (["--data", "nowhere"], 3, "nowhere"),
        (["--resume", "must"], 2, "--resume must"),
        (["--resume", "nowhere"], 2, "--resume nowhere: no such run or checkpoint folder"),
        (["--resume", "must", "--dry-run"], 2, "--resume must"),
        (["--out", __file__, "--dry-run"], 2, "is a file, not a folder"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    write_config: Callable[..., Path], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = run("--config", write_config(), "--out", tmp_path / "run", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_device_that_is_not_there_is_refused(write_config: Callable[..., Path], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    arguments = ["train", "--config", str(write_config()), "--out", str(tmp_path / "run"), "--device", "cuda"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--device cuda: this machine has no CUDA device" in result.stderr
    assert not (tmp_path / "run").exists()


def test_places_that_cannot_be_written(write_config: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert run("--config", write_config(), "--out", tmp_path / "mine").exit_code == 2
    result = run("--config", write_config(), "--out", tmp_path / "mine" / "thesis.tex" / "run")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_refused(
    write_config: Callable[..., Path], tmp_path: Path, trained: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    state = tmp_path / "run" / "checkpoints" / "last" / "state.safetensors"
    os.truncate(state, 5000)
    result = run("--config", trained / "config.yml", "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert "state.safetensors: not a readable safetensors file" in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.usefixtures("no_sample_grids")
def test_preemption_exits_with_75(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrainingBatches.at

    def at(batches: TrainingBatches, images_seen: int) -> Batch:
        if images_seen == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(batches, images_seen)

    file = write_config()
    with monkeypatch.context() as patched:
        patched.setattr(TrainingBatches, "at", at)
        result = run("--config", file, "--out", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (75, "")
    assert "stopped at 32 images, after saving" in result.stderr
    assert "error" not in result.stderr
    assert "hint: run the same command again" in result.stderr
    assert run("--config", file, "--out", tmp_path / "run").exit_code == 0


def train_and_wait(arguments: list[str], reached: Path) -> None:
    """Run the command in this process, and halt before the step at 128 images."""
    step = Learner.step

    def standing_still(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
        if seen == 128:
            reached.touch()
            signal.pause()
        step(learner, made, seen, partly)

    Learner.step = standing_still  # type: ignore[method-assign]
    sys.argv = ["civae", "train", *arguments]
    main()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_killed_process_is_continued_to_the_same_bits(
    write_config: Callable[..., Path], tmp_path: Path, no_sample_grids: None
) -> None:
    """Killed two steps after a checkpoint, in a process forked from this one: it has nothing to import."""
    file, reached = write_config(train__images=192, train__checkpoint_every=96), tmp_path / "reached"
    arguments = ["--config", str(file), "--device", "cpu", "--out", str(tmp_path / "killed")]
    process = multiprocessing.get_context("fork").Process(target=train_and_wait, args=(arguments, reached))
    process.start()
    deadline = time.monotonic() + 600
    while not reached.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    first = tmp_path / "killed" / "checkpoints" / "step-000000096"
    half_written = first.with_name(".writing-step-000000500")
    shutil.copytree(first, half_written)

    result = run("--config", file, "--out", tmp_path / "killed")
    assert result.exit_code == 0
    assert "continuing from 96" in result.stderr
    assert not half_written.exists()
    run("--config", file, "--out", tmp_path / "whole")
    assert_same_bits(tmp_path / "killed", tmp_path / "whole")
