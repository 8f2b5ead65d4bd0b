"""Small JSON files that commands leave for later ones: damaged or replaced, they are errors or taken for gone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from survival import survives
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.benchmark.cells import kept_evaluation, trained_seconds
from civae_core.data import PreparedData, report, workspace
from civae_core.data.left_out import read_left_out
from civae_core.data.pack import _read_record
from civae_core.engine.card import read_card
from civae_core.errors import DataError, UsageError
from civae_core.evaluation import foreign
from civae_core.export.hub import evaluation_of, find_evaluation
from civae_core.export.model_card import write_card
from civae_core.file_names import REPORT_JSON
from civae_core.inspection import inspect
from civae_core.locks import LOCK_NAME, _read
from civae_core.model.stored import read_card as read_model_card
from civae_core.model_paths import find_model_file, follow
from civae_core.overfitting import overfit_of
from civae_core.reading import MOST_JSON_BYTES, read_json
from civae_core.synthetic import celeba_tree
from civae_core.training.checkpoint import restore_checkpoint
from civae_core.training.metrics_file import MetricsFile
from civae_core.training.run_folder import RunFolder
from civae_core.yardstick.instrument import YardstickCard


def nested(file: Path) -> None:
    file.write_text("[" * 200_000)


def repeating(file: Path) -> None:
    file.write_text('{"a": 1, "a": 2}')


def in_another_encoding(file: Path) -> None:
    file.write_bytes(b'{"a": "\xff"}')


def of_another_kind(file: Path) -> None:
    file.write_text("[1, 2]")


def of_a_terabyte(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(2**40)


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_folder(file: Path) -> None:
    file.mkdir()


DAMAGES = [nested, repeating, in_another_encoding, of_another_kind, of_a_terabyte, a_pipe, a_folder]


def evaluation_of_run(folder: Path) -> Any:
    card = SimpleNamespace(config=SimpleNamespace(objective="intact"), images_seen=32)
    file = folder / "checkpoints" / "step-000000032" / "model.safetensors"
    stored: Any = SimpleNamespace(path=file, card=card)
    return evaluation_of(stored)


def cell_in(folder: Path) -> Any:
    return SimpleNamespace(run=folder)


# Where the note lies, and who reads it.
ERRORS: dict[str, Callable[[Path], Any]] = {
    "card.json": read_card,
    ".partial/plan.json": lambda folder: workspace.finished(folder, "this", overwrite=False),
    ".partial/chunk-00003.json": lambda folder: _read_record(folder, 3),
}
TAKEN_FOR_GONE: dict[str, Callable[[Path], Any]] = {
    "env.json": lambda folder: RunFolder(folder).origin(),
    REPORT_JSON: lambda folder: (
        report.read_question(folder) or report.read_rejected(folder) or read_left_out(folder)
    ),
    "faces.json": celeba_tree._read_facts,
    LOCK_NAME: lambda folder: _read(folder / LOCK_NAME),
    "evaluation.json": lambda folder: kept_evaluation(cell_in(folder), None, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("note", ERRORS)
def test_a_damaged_note_is_an_error_that_names_it(
    note: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / note).parent.mkdir(exist_ok=True)
    damage(tmp_path / note)
    with pytest.raises(
        (DataError, UsageError), match=Path(note).name if note != "card.json" else "card|export"
    ):
        survives(note, lambda: ERRORS[note](tmp_path), may_raise=())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("note", TAKEN_FOR_GONE)
def test_a_damaged_note_that_nothing_rests_on_is_taken_for_gone(
    note: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(tmp_path / note)
    assert not survives(note, lambda: TAKEN_FOR_GONE[note](tmp_path), may_raise=())


@pytest.mark.parametrize("damage", DAMAGES[:5])  # what is no file is none to these two
def test_damaged_notes_that_an_answer_would_rest_on(
    damage: Callable[[Path], None], faces: PreparedData, tmp_path: Path
) -> None:
    damage(tmp_path / foreign.ORIGIN)
    with pytest.raises(DataError, match=r"questions.json is damaged"):
        survives("questions.json", lambda: foreign._require_origin(tmp_path, faces), may_raise=())
    damage(tmp_path / "evaluation.json")
    with pytest.raises(DataError, match=r"evaluation.json: not an evaluation"):
        survives("evaluation.json", lambda: evaluation_of_run(tmp_path), may_raise=())


def test_a_note_as_it_was_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "note.json"
    file.write_text('{"é": [1, null]}', encoding="utf-8")
    assert read_json(file) == {"é": [1, None]}
    file.write_bytes(b" " * (MOST_JSON_BYTES - 1) + b"1")
    assert read_json(file) == 1
    file.write_bytes(b" " * MOST_JSON_BYTES + b"1")
    with pytest.raises(OSError, match="larger than the 16,777,216 bytes"):
        read_json(file)


def test_a_line_of_metrics_that_is_none_is_passed_over(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    metrics = run / "metrics.jsonl"
    good = metrics.read_text()
    metrics.write_text(good + "[" * 200_000 + "\n")
    assert inspect(run)["last_metrics"] == json.loads(good.splitlines()[-1])
    MetricsFile(metrics).cut_back(lines=None, images=0)
    assert metrics.read_text() == "[" * 200_000 + "\n", "one that tells no count is not judged"


ODD_PARTS: list[Any] = [
    None,
    [1],
    "x",
    5,
    {"Young": [1], "ours": [1]},
    {"ours": {"leak": "x", "effectiveness": -1, "ate_error": [], "Young": "x"}},
    {"ours": {"leak": {"Male": 10**400}, "effectiveness": {"Young": 1}, "ate_error": {"mean": 10**400}}},
]


@pytest.mark.parametrize("odd", ODD_PARTS, ids=range(len(ODD_PARTS)))
@pytest.mark.parametrize("part", ["methods", "overlap", "predictor", "do", "data"])
def test_odd_parts_of_an_evaluation_count_as_not_measured(part: str, odd: Any, measured_run: Path) -> None:
    card = read_model_card(find_model_file(measured_run))
    evaluation = {
        "images_seen": {"ours": card.images_seen},
        "methods": {"ours": {"ate_error": 0.5}},
        part: odd,
    }
    (measured_run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    found, _ = find_evaluation(find_model_file(measured_run), card)
    told = write_card(card, found, title="faces", licence="mit", data_licence="none")
    assert "# faces" in told and "## Overlap" in told
    said = CliRunner().invoke(app, ["info", str(measured_run)])
    assert said.exit_code == 0 and "objective" in said.stdout


ODD_METRICS = [
    "[1]",
    "5",
    "{",
    '{"images": [], "valid_loss": {}}',
    '{"images": Infinity, "valid_loss": NaN, "images_per_second": -Infinity}',
    '{"images": 512, "valid_loss": true, "images_per_second": 0, "pairing_seconds": "x"}',
    '{"images": BIG, "valid_loss": BIG, "images_per_second": BIG, "pairing_seconds": BIG}'.replace(
        "BIG", "9" * 400
    ),
]


@pytest.mark.parametrize("odd", [*ODD_METRICS, "a folder"])
def test_metrics_that_are_no_numbers_are_nobody_s_trouble(odd: str, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    metrics = run / "metrics.jsonl"
    whole = metrics.read_text(encoding="utf-8")
    seconds = trained_seconds(metrics)
    if odd == "a folder":
        metrics.unlink()
        metrics.mkdir()
        assert trained_seconds(metrics) == 0
    else:
        metrics.write_text(f"{whole}{odd}\n", encoding="utf-8")
        assert trained_seconds(metrics) == seconds
        assert overfit_of(run) is None
        MetricsFile(metrics).cut_back(lines=None, images=10**9)
        assert metrics.read_text(encoding="utf-8").startswith(whole)
    for form in ([], ["--json"]):
        said = CliRunner().invoke(app, ["info", str(run), *form])
        assert said.exit_code == 0 and "objective" in said.stdout


def test_the_card_of_a_scorer_cannot_nest_without_end() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        YardstickCard.from_json("[" * 200_000)


@pytest.mark.parametrize(
    "named", ["../../elsewhere", "/etc", "step-1\0", "a" * 300, "step-000000512\nstep-1", "é", ""]
)
def test_a_file_that_stands_for_a_checkpoint_names_one_beside_it(named: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").touch()
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last").write_text(named, encoding="utf-8")
    assert follow(checkpoints / "last") == checkpoints / "last"
    with pytest.raises(DataError, match=r"contains no model.safetensors and no checkpoints/last"):
        find_model_file(tmp_path / "run")
    (checkpoints / "last").write_text("step-000000512\n", encoding="utf-8")
    assert follow(checkpoints / "last") == checkpoints / "step-000000512"


# Training states.


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree((trained / "checkpoints" / "last").resolve(), tmp_path / "step-000000512"))


def learner_for(checkpoint: Path) -> Any:
    from civae_core.model.stored import load_model
    from civae_core.training.device import Compute
    from civae_core.training.learner import Learner

    stored = load_model(checkpoint)
    compute = Compute(torch.device("cpu"), "fp32", channels_last=False)
    return Learner(stored.card.build(), stored.card.config, stored.card.roles, compute)


def test_a_training_state_is_read_only_if_it_can_be_of_this_network(checkpoint: Path) -> None:
    """Sparse stretches of the file that claim to be tensors, one of which this run would not need."""
    state = checkpoint / "state.safetensors"
    learner, good = learner_for(checkpoint), state.read_bytes()
    assert restore_checkpoint(checkpoint, learner).images_seen == 512

    header = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")

    def with_hole(name: str, size: int) -> None:
        more = header | {name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [end, end + size]}}
        text = json.dumps(more).encode()
        state.write_bytes(len(text).to_bytes(8, "little") + text + good[-end:])
        with state.open("r+b") as file:
            file.truncate(8 + len(text) + end + size)

    with_hole("model.more", 2**33)
    with pytest.raises(
        DataError, match=r"state.safetensors: holds 2,\d+,\d+,\d+ numbers, but a training state of this"
    ):
        survives("state", lambda: restore_checkpoint(checkpoint, learner), may_raise=())
    with_hole("model.more", 2**40)  # more than most machines let a file map
    with pytest.raises(DataError, match=r"state.safetensors: (holds|not a readable safetensors file)"):
        survives("state", lambda: restore_checkpoint(checkpoint, learner), may_raise=())
    with_hole("critics.of_another_run.weight", 2**33)
    assert restore_checkpoint(checkpoint, learner).images_seen == 512


def test_the_notes_of_a_training_state_cannot_nest_without_end(checkpoint: Path) -> None:
    state = checkpoint / "state.safetensors"
    tensors = load_file(state)
    save_file(tensors, state, metadata={"civae_state": "[" * 200_000})
    with pytest.raises(DataError, match="not a training state of this version"):
        survives("state", lambda: restore_checkpoint(checkpoint, learner_for(checkpoint)), may_raise=())
