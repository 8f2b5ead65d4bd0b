"""Benchmarks from end to end: one command, resumed, with failing cells, in several processes."""

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.benchmark import cells as cells_module
from civae_core.benchmark import run as run_module
from civae_core.benchmark import work as work_module
from civae_core.benchmark.cells import Cell, Scoring
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data import prepare as prepare_module
from civae_core.errors import PreemptedError
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.realism import Extractor
from civae_core.files import write_json
from civae_core.training.stopping import stop_on_signals
from civae_core.yardstick import cache as cache_module
from civae_core.yardstick import load_yardstick

FACES = """
faces: {n: 200, size: 32, overlap: [0.3, 1.0]}
seeds: [0, 1]
base:
  model: {width: 8, stages: [1, 2], latent: 8, layers: 4, prior_hidden: 16}
  train:
    {images: 32, batch_size: 16, log_every: 32, checkpoint_every: 32, sample_every: 100, validate_images: 4,
     pairing_images: 32}
methods:
  cvae: {objective: cvae}
  ours: {}
"""
GIVEN = """
base:
  data: {path: PATH, treatment: Young, covariates: [Male]}
  model: {width: 8, stages: [1, 2], latent: 8, layers: 4, prior_hidden: 16}
  train:
    {images: 64, batch_size: 16, log_every: 64, checkpoint_every: 64, sample_every: 100, validate_images: 4,
     pairing_images: 32}
methods:
  broken: {model: {stages: [1, 1, 1, 1, 1, 1, 1]}}
  original: {objective: original}
  ours: {}
"""

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make faces in this process; starting others would take longer."""
    monkeypatch.setattr(run_module, "available_cores", lambda: 1)


@pytest.fixture
def no_data_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "write_report", lambda *_: None)


@pytest.fixture
def write(tmp_path: Path, faces: PreparedData) -> Write:
    def make(text: str) -> Path:
        file = tmp_path / "bench.yml"
        file.write_text(text.replace("PATH", str(faces.path)), encoding="utf-8")
        return file

    return make


def civae(*arguments: object) -> tuple[int, str, str]:
    command = ["benchmark", "--scorer", "none", "--limit", "12", *map(str, arguments)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "80"})
    return result.exit_code, result.stdout, result.stderr


def checkpoints(out: Path) -> dict[str, int]:
    files = sorted(out.glob("runs/*/*/checkpoints/step-*/*.safetensors"))
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


def test_a_sweep_trains_every_cell_once_and_leaves_table_figure_and_page(
    write: Write, tmp_path: Path
) -> None:
    file, out = write(FACES), tmp_path / "out"
    code, stdout, stderr = civae(file, "--out", out)
    assert (code, stdout) == (0, f"{out / 'benchmark.json'}\n")
    order = re.findall(r"^\d/8 (\S+)$", stderr, re.MULTILINE)
    first = [f"overlap-{o}/{m}-seed0" for o in ("1.0", "0.3") for m in ("cvae", "ours")]
    assert order == [*first, *(name.replace("seed0", "seed1") for name in first)]

    results = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    assert [cell["status"] for cell in results["cells"]] == ["done"] * 8
    assert [data["overlap"] for data in results["data"]] == [1.0, 0.3]
    easy, hard = (data["balance"]["Young"] for data in results["data"])
    assert easy["effective_sample_share"] > hard["effective_sample_share"]
    for name in ("overlap-1.0", "overlap-0.3"):
        summary = results["summary"][name]
        assert set(summary) == {"copy", "cvae", "ours"}
        assert summary["copy"]["relative_effect_error"]["mean"] == 1.0
        runs = [
            cell["numbers"]["psnr_reconstruction"]["mean"]
            for cell in results["cells"]
            if (cell["data"], cell["method"]) == (name, "ours")
        ]
        assert len(set(runs)) == 2  # the seeds gave different models
        assert summary["ours"]["psnr_reconstruction"]["mean"] == pytest.approx(np.mean(runs))
        assert summary["ours"]["psnr_reconstruction"]["sd"] == pytest.approx(np.std(runs, ddof=1))
    assert Image.open(out / "overlap.png").width > 400
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "8 of 8 trainings" in page and "http-equiv" not in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)

    before = checkpoints(out)
    picture = (out / "overlap.svg").read_bytes()
    assert len(before) == 16
    code, _, stderr = civae(file, "--out", out)
    assert code == 0 and checkpoints(out) == before
    assert "training" not in stderr and "images/s" not in stderr
    assert (out / "overlap.svg").read_bytes() == picture

    # Another limit scores again, and trains nothing.
    one = ("--only", "ours", "--seeds", "0")
    code, stdout, stderr = civae(file, "--out", out, "--limit", 7, *one, "--json", "-q")
    assert checkpoints(out) == before
    assert {data["asked"]["n"] for data in json.loads(stdout)["data"]} == {7}


def test_a_cell_that_fails_leaves_the_others_and_the_exit_code_one(write: Write, tmp_path: Path) -> None:
    file, out = write(GIVEN), tmp_path / "out"
    code, stdout, stderr = civae(file, "--out", out, "--seeds", "0-1", "-q")
    assert (code, stdout) == (1, f"{out / 'benchmark.json'}\n")
    assert "2 of 6 cells failed: made-faces/broken-seed0 and 1 more: model.stages: 7 stages need" in stderr
    assert "hint: " in stderr and "Traceback" not in stderr
    results = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    by_status = {cell["method"]: cell["status"] for cell in results["cells"]}
    assert by_status == {"broken": "failed", "original": "done", "ours": "done"}
    assert set(results["summary"]["made-faces"]) == {"copy", "original", "ours"}
    assert results["summary"]["made-faces"]["ours"]["bits_per_dim"]["runs"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "faces/broken-seed1: model.stages: 7 stages" in page and "<svg" not in page
    assert not (out / "overlap.png").exists()


def test_only_and_seeds_choose_what_is_worked_on_and_keep_what_is_there(write: Write, tmp_path: Path) -> None:
    file, out = write(GIVEN), tmp_path / "out"
    assert civae(file, "--out", out, "--only", "ours")[0] == 0
    code, stdout, _ = civae(file, "--out", out, "--only", "original", "--json")
    status = {cell["method"]: cell["status"] for cell in json.loads(stdout)["cells"]}
    assert code == 0 and status == {"broken": "pending", "original": "done", "ours": "done"}
    code, _, stderr = civae(file, "--out", out, "--only", "our")
    assert code == 2 and "--only our: the benchmark has no such method" in stderr
    assert "did you mean ours?" in stderr
    code, _, stderr = civae(file, "--out", out, "--seeds", "2-1")
    assert code == 2 and "--seeds 2-1" in stderr


def test_other_measures_score_a_cell_again_and_train_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    kept: list[dict[str, int]] = []

    def evaluate(models: Any, *arguments: Any, **options: Any) -> Any:
        scored.append(models[0].card.config.objective)
        return real(models, *arguments, **options)

    real = cells_module.evaluate
    monkeypatch.setattr(cells_module, "evaluate", evaluate)
    file, out = write(GIVEN), tmp_path / "out"
    for fingerprint, times in (("as they are", 1), ("as they are", 1), ("as they will be", 2)):
        monkeypatch.setattr(cells_module, "scoring_fingerprint", lambda found=fingerprint: found)
        assert civae(file, "--out", out, "--only", "ours")[0] == 0
        assert scored == ["intact"] * times
        kept.append(checkpoints(out))
    assert kept[0] == kept[1] == kept[2] and kept[0]


def test_what_auto_was_taken_for_first_stays_though_inceptions_weights_arrive(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []

    def choose(*_: Any, extractor: str, **__: Any) -> Instruments:
        chosen.append(extractor)
        return Instruments(extractor=cast(Extractor, None if extractor == "none" else extractor))

    def score(cell: Cell, device: str, scoring: Scoring) -> None:
        write_json(cell.run / "evaluation.json", {"benchmark": {"extractor": scoring.extractor}})

    monkeypatch.setattr(run_module, "choose_instruments", choose)
    monkeypatch.setattr(run_module, "run_cell", score)
    file, out = write(GIVEN), tmp_path / "out"
    at_hand = iter(("scorer", "inception"))
    monkeypatch.setattr(run_module, "resolved_extractor", lambda _: next(at_hand))
    (out / "runs/made-faces/broken-seed0").mkdir(parents=True)
    (out / "runs/made-faces/broken-seed0/evaluation.json").write_text("{", encoding="utf-8")
    for options in (("--extractor", "none"), (), ("--only", "ours"), ("--extractor", "inception")):
        assert civae(file, "--out", out, *options)[0] == 0
    assert chosen == ["none", "scorer", "scorer", "inception"]


@pytest.mark.usefixtures("in_full")
def test_several_processes_give_the_same_numbers_and_are_quiet_with_the_command(
    write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(GIVEN)
    options = ("--only", "ours", "--only", "broken", "--set", "methods.ours.model.deep=true", "-q")
    for out, jobs in (("one", 1), ("two", 2)):
        assert civae(file, "--out", tmp_path / out, "--jobs", jobs, *options)[0] == 1
    # What the processes say does not go through the command's own stderr.
    said = capfd.readouterr().err.splitlines()
    assert any(line.startswith("warning: made-faces/ours-seed0: model.deep has no effect") for line in said)
    assert not any(line.startswith("made-faces/") for line in said), said
    one, two = (
        json.loads((tmp_path / out / "benchmark.json").read_text(encoding="utf-8")) for out in ("one", "two")
    )
    assert two["summary"] == one["summary"]
    strip = [{k: v for k, v in cell.items() if k != "seconds"} for cell in one["cells"]]
    assert [{k: v for k, v in cell.items() if k != "seconds"} for cell in two["cells"]] == strip


@pytest.mark.usefixtures("no_data_report")
def test_a_stop_keeps_what_is_done_and_ends_the_whole_benchmark(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write(FACES), tmp_path / "out"
    trained: list[str] = []

    def train(config: Config, run: Path, **options: Any) -> object:
        if len(trained) == 1:
            raise PreemptedError("stopped at 16 images, after saving")
        trained.append(run.name)
        return real(config, run, **options)

    real = cells_module.train
    monkeypatch.setattr(cells_module, "train", train)
    code, _, stderr = civae(file, "--out", out)
    assert code == 75 and "after saving" in stderr
    results = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    assert [cell["status"] for cell in results["cells"]] == ["done"] + ["pending"] * 7


def test_a_signal_that_a_training_leaves_unheeded_ends_the_benchmark_before_it_is_scored(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training does in its last step."""

    def train(config: Config, run: Path, **_: object) -> None:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cells_module, "train", train)
    code, _, stderr = civae(write(GIVEN), "--out", tmp_path / "out", "--only", "ours")
    assert code == 75 and "stopped; finished work is kept\n\nhint: run the same command again" in stderr


def test_an_unexpected_exception_is_a_failed_cell_too(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_module, "evaluate", lambda *_a, **_k: 1 / 0)
    code, _, stderr = civae(write(GIVEN), "--out", tmp_path / "out", "--only", "ours")
    assert (
        code == 1
        and "1 of 1 cells failed: made-faces/ours-seed0: ZeroDivisionError: division by zero" in stderr
    )


def test_a_run_with_another_config_or_budget_is_never_taken_for_the_cell(
    write: Write, tmp_path: Path
) -> None:
    file, out = write(GIVEN), tmp_path / "out"
    assert civae(file, "--out", out, "--only", "ours")[0] == 0
    before = checkpoints(out)
    for change, sentence in (
        ("base.train.lr=1e-2", "different config: train.lr"),
        ("base.train.images=32", "has seen 64 images, more than train.images 32"),
    ):
        code, _, stderr = civae(file, "--out", out, "--only", "ours", "--set", change)
        assert code == 1 and sentence in stderr
        assert checkpoints(out) == before


def test_the_roles_columns_are_looked_up_before_anything_is_trained(write: Write, tmp_path: Path) -> None:
    file, out = write(GIVEN), tmp_path / "out"
    code, _, stderr = civae(file, "--out", out, "--set", "base.data.covariates=[Mael]")
    assert code == 2 and "Mael" in stderr
    assert not (out / "runs").exists()


def test_data_without_anything_to_score_is_refused_before_anything_is_trained(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = PreparedData.rows
    monkeypatch.setattr(PreparedData, "rows", lambda data, of: rows(data, of)[: 0 if of == "test" else None])
    code, stdout, stderr = civae(write(GIVEN), "--out", tmp_path / "out")
    assert (code, stdout) == (
        3,
        "",
    ) and "the test split has no image whose treatment and covariates" in stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_an_extractor_of_other_images_is_refused_before_anything_is_trained(
    write: Write, small_scorer: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = civae(write(GIVEN), "--out", tmp_path / "out", "--extractor", small_scorer)
    assert (code, stdout) == (2, "") and f"--extractor {small_scorer}: takes images of 1×16×16" in stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_a_treatment_that_the_faces_cannot_have_writes_nothing(write: Write, tmp_path: Path) -> None:
    file, out = write(FACES.replace("base:", "base:\n  data: {treatment: [Gray_Hair]}")), tmp_path / "out"
    code, _, stderr = civae(file, "--out", out)
    assert code == 2
    assert f"{file}:5:22: base.data.treatment: Gray_Hair follows from other attributes" in stderr
    assert not out.exists()


def test_faces_half_made_for_another_benchmark_are_refused_with_a_hint_that_helps(
    write: Write, tmp_path: Path
) -> None:
    file, out = write(FACES), tmp_path / "out"
    plan = out / "data" / "overlap-1.0" / ".partial" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text('{"preparation": "another"}')
    code, _, stderr = civae(file, "--out", out)
    assert code == 2 and "--overwrite" not in stderr
    assert f"error: {plan.parents[1]} holds another, unfinished preparation" in stderr
    assert f"hint: name another --out, or delete {plan.parents[1]}\n" in stderr


@pytest.mark.usefixtures("no_data_report")
def test_one_scorer_of_the_data_with_the_most_overlap_judges_all(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVAE_CACHE", str(tmp_path / "cache"))
    command = ["benchmark", str(write(FACES)), "--out", str(tmp_path / "out"), "--only", "ours"]
    command += ["--seeds", "0", "--limit", "12"]
    code = CliRunner().invoke(app, [*command, "--scorer-images", "64"]).exit_code
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text(encoding="utf-8"))
    assert code == 0
    for name in ("overlap-1.0", "overlap-0.3"):
        assert set(results["summary"][name]) == {"copy", "ours", "truth"}
    (file,) = (tmp_path / "cache").glob("scorers/*.safetensors")
    scorer = load_yardstick(file)
    assert results["scorer"] == scorer.fingerprint
    assert scorer.card.data["fingerprint"] == results["data"][0]["fingerprint"]
    assert results["summary"]["overlap-0.3"]["ours"]["realism"]["fid"]["mean"] > 0
    # Without it the cells are scored again, since these numbers were made in another way.
    assert CliRunner().invoke(app, [*command, "--scorer", "none"]).exit_code == 0
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text(encoding="utf-8"))
    assert results["scorer"] is None and set(results["summary"]["overlap-0.3"]) == {"copy", "ours"}


def test_the_scorer_that_judged_first_judges_later_though_the_cache_is_another(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained again, it would have other weights, as on a GPU."""
    trained: list[int] = []
    scored: list[Cell] = []

    def train(*arguments: Any, seed: int, **options: Any) -> Any:
        trained.append(seed)
        return train_really(*arguments, seed=len(trained), **options)

    def evaluate(*arguments: Any, **options: Any) -> Any:
        scored.append(arguments[0])
        return evaluate_really(*arguments, **options)

    train_really, evaluate_really = cache_module.train_yardstick, cells_module.evaluate
    monkeypatch.setattr(cache_module, "train_yardstick", train)
    monkeypatch.setattr(cells_module, "evaluate", evaluate)
    file, out = write(GIVEN), tmp_path / "out"
    numbers: list[dict[str, Any]] = []
    for cache in ("here", "there"):
        monkeypatch.setenv("CIVAE_CACHE", str(tmp_path / cache))
        options = ("--only", "ours", "--scorer", "auto", "--scorer-images", "64")
        assert civae(file, "--out", out, *options)[0] == 0
        numbers.append(json.loads((out / "benchmark.json").read_text(encoding="utf-8")))
    assert len(trained) == len(scored) == 1 and numbers[0] == numbers[1]
    (kept,) = (out / "scorers").iterdir()
    assert load_yardstick(kept).fingerprint == numbers[1]["scorer"]


TURNS = ["cuda:0", "cuda:1", "cuda:1", "cuda:1"]


@pytest.mark.parametrize(
    ("device", "given"),
    [("auto", TURNS), ("cuda", TURNS), ("cuda:1", ["cuda:1"] * 4), ("cpu", ["cpu"] * 4)],
)
def test_each_process_has_a_gpu_of_its_own_unless_one_is_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, given: list[str]
) -> None:
    """Two processes on two GPUs; the first cell lasts until all others have ended."""
    notes = tmp_path / "notes"
    notes.mkdir()

    def note(cell: Cell, device: str, scoring: Scoring) -> None:
        while cell.seed == 0 and not (notes / "3").exists():
            time.sleep(0.01)
        (notes / str(cell.seed)).write_text(device)

    for name, answer in (("is_available", True), ("device_count", 2), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(run_module, "run_cell", note)
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(work_module.multiprocessing, "get_context", lambda _: fork)
    options = ("--only", "ours", "--seeds", "0-3", "--jobs", "2", "--device", device)
    assert civae(write(GIVEN), "--out", tmp_path / "out", *options)[0] == 0
    assert [(notes / str(seed)).read_text() for seed in range(4)] == given


def test_a_setting_without_effect_is_named_once_with_its_methods(write: Write, tmp_path: Path) -> None:
    text = GIVEN.replace("ours: {}", "ours: {model: {deep: true}}\n  theirs: {model: {deep: true}}")
    # Columns are looked up after the warnings; one that is missing ends the command.
    code, _, stderr = civae(write(text), "--out", tmp_path / "out", "--set", "base.data.covariates=[Mael]")
    warnings = [line for line in stderr.splitlines() if "model.deep has no effect" in line]
    assert code == 2 and warnings == [
        "warning: ours, theirs: model.deep has no effect: only `model.network: original` has it"
    ]


def test_the_seconds_of_a_cell_are_those_of_all_its_trainings(tmp_path: Path) -> None:
    record = tmp_path / "metrics.jsonl"
    assert cells_module.trained_seconds(record) == 0
    lines = [(100, 50.0), (200, 25.0), (200, None), (300, 10.0), (300, 20.0), (310, 5.0)]
    rows = [{"images": n, **({"images_per_second": speed} if speed else {})} for n, speed in lines]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert cells_module.trained_seconds(record) == 100 / 50 + 100 / 25 + 100 / 20 + 10 / 5
