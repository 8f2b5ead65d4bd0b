"""civae info: cards, JSON, and files that are not ours."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from civae_cli.app import app
from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, save_model
from civae_core.yardstick import Yardstick, YardstickCard, save_yardstick
from civae_core.yardstick.instrument import Networks


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_name_longer_than_any_can_be_is_of_no_file() -> None:
    result = run("info", "a" * 300)
    assert result.exit_code == 2 and f"error: {'a' * 300}: no such file or folder\n\nhint: " in result.stderr


@pytest.fixture
def model_file(
    tmp_path: Path,
    roles: AttributeRoles,
    make_config: Callable[..., Config],
    make_model: Callable[..., IntactVAE],
) -> Path:
    card = ModelCard(
        config=make_config(train={"images": 5000}),
        roles=roles,
        preprocessing={"size": 16, "channels": 3, "crop": 150},
        images_seen=1200,
        data={"name": "faces", "path": "data", "fingerprint": "ab" * 32},
        subjects=[],
    )
    folder = tmp_path / "run" / "checkpoints" / "step-000001200"
    folder.mkdir(parents=True)
    save_model(make_model(), card, folder / "model.safetensors")
    for name in ("last", "best"):
        (folder.parent / name).symlink_to(folder.name)
    lines = '{"images": 1200, "loss": 3.5}\n{"images": 12'
    (tmp_path / "run" / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder / "model.safetensors"


def test_a_model_in_a_folder_whose_name_is_not_utf8_is_read(model_file: Path) -> None:
    odd = model_file.parent.rename(model_file.parent.with_name(os.fsdecode(b"step-\xe9")))
    result = run("info", str(odd), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["weights"] > 0


EVALUATION = {
    "data": "faces",
    "split": "test",
    "n": 40,
    "noise": 1.0,
    "do": {"Young": "flip"},
    "images_seen": {"ours": 1200, "cvae": 1200},
    "overlap": {"Young": {"auc": 0.71, "effective_sample_share": 0.625, "verdict": "Overlap is fine. " * 9}},
    "methods": {
        "ours": {"leak": {"Male": {"mean": -0.25, "lo": -0.5, "hi": 0.125}}, "relative_effect_error": 0.375},
        "cvae": {"leak": {"Male": {"mean": -9.0}}, "relative_effect_error": 0.875},
    },
    "predictor": {"ours": {"Male": {"accuracy": 0.9375, "ece": 0.021}}},
}


def test_a_models_card_has_the_figures_of_its_own_evaluation(model_file: Path) -> None:
    place = model_file.parents[2]
    (place / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    shown = run("info", str(place)).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["Young", "0.71", "–", "0.625"] in lines, "the long verdict stands below its row"
    assert ["Male", "-0.25", "(-0.5", "to", "0.125)"] in lines
    assert ["Male", "0.938", "0.021", "–"] in lines
    assert "0.375" in shown and "0.875" not in shown, "not the baseline's"
    assert "40 images of faces, split test, under Young=flip" in shown
    assert "  - Not for decisions about people" in shown and "**" not in shown
    assert max(map(len, shown.splitlines())) <= 110
    facts = json.loads(run("info", str(place), "--json").stdout)
    assert facts["evaluation"]["methods"] == {"ours": EVALUATION["methods"]["ours"]}
    assert facts["not_evaluated"] == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "has no evaluation"),
        (
            json.dumps(EVALUATION | {"images_seen": {"ours": 7}}),
            "describes a model that had seen 7 images, not 1200",
        ),
        ("{", "not an evaluation"),
    ],
)
def test_a_card_without_figures_says_why_and_keeps_its_limits(
    model_file: Path, text: str | None, told: str
) -> None:
    place = model_file.parents[2]
    if text is not None:
        (place / "evaluation.json").write_text(text, encoding="utf-8")
    result = run("info", str(place))
    assert result.exit_code == 0
    assert told in " ".join(result.stdout.split()) and "limits" in result.stdout
    assert json.loads(run("info", str(place), "--json").stdout)["evaluation"] is None


def test_a_model_file_describes_itself(model_file: Path) -> None:
    result = run("info", str(model_file))
    assert result.exit_code == 0
    assert "1,200 of 5,000 images" in result.stdout
    assert "from a centre crop of 150" in result.stdout
    facts = json.loads(run("info", str(model_file), "--json").stdout)
    assert facts["kind"] == "model"
    assert facts["roles"]["treatment"] == ["Young"]
    assert facts["config"]["model"]["latent"] == 4


def test_weights_are_counted_from_the_header(model_file: Path, make_model: Callable[..., IntactVAE]) -> None:
    facts = json.loads(run("info", str(model_file), "--json").stdout)
    assert facts["weights"] == sum(tensor.numel() for tensor in make_model().state_dict().values())


def test_a_run_and_a_checkpoint_are_told_apart(model_file: Path) -> None:
    checkpoint = json.loads(run("info", str(model_file.parent), "--json").stdout)
    assert checkpoint["kind"] == "checkpoint"
    folder = model_file.parents[2]
    facts = json.loads(run("info", str(folder), "--json").stdout)
    assert facts["kind"] == "run"
    assert facts["checkpoints"] == ["step-000001200"]
    assert facts["best"] == "step-000001200"
    assert facts["last_metrics"] == {"images": 1200, "loss": 3.5}
    assert "best: step-000001200" in run("info", str(folder)).stdout


def test_prepared_data_describes_itself(tmp_path: Path) -> None:
    out = tmp_path / "data"
    truths = [TruthSpec("Young=flip", {"Young": "flip"})]
    source = faces_source(count=30, seed=0, overlap=0.5, truths=truths, size=32, channels=3)
    prepare(source, out, workers=1, max_bad=MaxBad.parse("0"))
    result = run("info", str(out))
    assert result.exit_code == 0, result.stderr
    assert "30 (train " in result.stdout
    assert "Young=flip" in result.stdout
    facts = json.loads(run("info", str(out / "dataset.yml"), "--json").stdout)
    assert facts["kind"] == "data"
    assert sum(facts["splits"].values()) == facts["images"] == 30
    assert run("info", str(out), "--verify").exit_code == 0
    shard = out / "images-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run("info", str(out)).exit_code == 0
    changed = run("info", str(out), "--verify")
    assert changed.exit_code == 3 and "does not match its checksum" in changed.stderr
    shard.write_bytes(whole[:-100])
    truncated = run("info", str(out))
    assert truncated.exit_code == 3
    assert "images-00000.safetensors" in truncated.stderr


def test_a_scorer_says_whom_it_judges_and_how_well(tmp_path: Path, roles: AttributeRoles) -> None:
    young, *_ = roles.treatments
    dose = Attribute("Dose", "continuous", 0.0, 10.0, 5.0, 2.0)
    card = YardstickCard(
        attributes=(young, dose),
        size=16,
        channels=1,
        data={"name": "some faces", "fingerprint": "cd" * 32},
        roles={"treatments": ["Young"], "descendants": []},
        images=24_000,
        seed=3,
        photos={"Young": {"accuracy": 0.975, "auc": 0.99, "n": 40}, "Dose": {"r2": 0.5, "mae": 1.0, "n": 40}},
        blurred={"Young": {"accuracy": 0.75, "n": 40}},
        reconstructions={"runs/mine": {"Young": {"accuracy": 0.5, "n": 40}}},
    )
    scorer = Yardstick(Networks(16, 1, 2).eval(), card)
    path = tmp_path / "scorer.safetensors"
    save_yardstick(scorer, path)
    text = run("info", str(path)).stdout
    for said in (
        f"{scorer.name} in {path}",
        "on 24,000 images, seed 3",
        "some faces (cdcdcdcdcdcdcdcd)",
        "16 × 16 grey\n",
        "Young (binary): photographs 97.5% · 0.990; blurred 75.0%; runs/mine 50.0%",
        "Dose (continuous): photographs R² 0.500\n",
    ):
        assert said in text, text
    facts = json.loads(run("info", str(path), "--json").stdout)
    assert facts["kind"] == "scorer" and facts["fingerprint"] == scorer.fingerprint
    assert facts["photos"] == card.photos and facts["data"] == card.data
    assert facts["weights"] == sum(tensor.numel() for tensor in scorer.networks.state_dict().values())
    assert run("info", str(path), "--verify").exit_code == 2
    path.write_bytes(path.read_bytes()[:-10])
    broken = run("info", str(path))
    assert broken.exit_code == 3 and f"error: {path}: " in broken.stderr


def test_what_is_not_ours_is_bad_data(tmp_path: Path, model_file: Path) -> None:
    text, foreign, empty = tmp_path / "notes.txt", tmp_path / "foreign.safetensors", tmp_path / "empty"
    text.write_text("hello", encoding="utf-8")
    save_file({"w": torch.zeros(2)}, foreign)
    empty.mkdir()
    model_file.write_bytes(model_file.read_bytes()[:-10])
    for path in (text, foreign, empty, model_file):
        result = run("info", str(path))
        assert result.exit_code == 3, path
        assert result.stderr.startswith(f"error: {path}: ")
        assert "hint: " in result.stderr
        assert result.stdout == ""


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    result = run("info", str(tmp_path / "nothing"))
    assert result.exit_code == 2
    assert "no such file or folder" in result.stderr
