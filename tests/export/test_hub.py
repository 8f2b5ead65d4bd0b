"""The folder for a model hub: a model that works as it lies, a card that says what it must, no path of a machine."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.seeds import summarise
from civae_core.export.hub import evaluation_of, export_hub, published
from civae_core.export.model_card import write_card
from civae_core.model.stored import ModelCard, StoredModel, load_model

EVALUATION: dict[str, Any] = {
    "data": "synthetic:faces",
    "split": "test",
    "n": 60,
    "noise": 1.0,
    "do": {"Young": "flip"},
    "images_seen": {"ours": 512},
    "overlap": {
        "Young": {
            "auc": 0.87654,
            "share_extreme": 0.25,
            "effective_sample_share": 0.5,
            "verdict": "Overlap is thin.",
        }
    },
    "methods": {
        "copy": {"relative_effect_error": {"mean": 1.0, "lo": 1.0, "hi": 1.0}},
        "ours": {
            "relative_effect_error": {"mean": 0.1234, "lo": 0.1, "hi": 0.15},
            "leak_reference": "truth",
            "leak": {"Male": {"mean": -0.5, "lo": -0.75, "hi": -0.25}},
            "effectiveness": {"Young": {"accuracy": {"mean": 0.9, "lo": 0.8, "hi": 1.0}}},
        },
    },
}


@pytest.fixture(scope="module")
def stored(trained: Path) -> StoredModel:
    return load_model(trained)


def card_of(stored: StoredModel, evaluation: dict[str, Any] | None = EVALUATION, **changes: Any) -> str:
    said = {"title": "Faces, older", "licence": "mit", "data_licence": None} | changes
    return write_card(stored.card, evaluation, **said)


def row(text: str, first: str) -> list[str]:
    """The cells of the table row that starts with `first`."""
    (found,) = re.findall(rf"^\| {re.escape(first)} \|.*$", text, flags=re.MULTILINE)
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_folder_is_a_model_that_answers_as_before(
    stored: StoredModel, faces: PreparedData, tmp_path: Path
) -> None:
    folder = export_hub(stored, tmp_path / "hub", licence="mit")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = load_model(folder)
    assert all(
        torch.equal(value, again.model.state_dict()[name])
        for name, value in stored.model.state_dict().items()
    )
    assert again.card == published(stored.card)
    arguments = ["--model", str(folder), "--treat", "Young=flip", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["counterfactual", f"{faces.path}#test[0]", *arguments])
    assert result.exit_code == 0 and (tmp_path / "out").is_dir()


def test_no_path_of_this_machine_is_published(stored: StoredModel, tmp_path: Path) -> None:
    path = stored.card.config.data.path
    assert path.encode() in stored.path.read_bytes(), "else this test sees nothing"
    folder = export_hub(stored, tmp_path / "hub")
    for file in folder.iterdir():
        assert path.encode() not in file.read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["fingerprint"] == stored.card.data["fingerprint"]
    assert config["roles"] == stored.card.roles.to_dict() and "subjects" not in config


def test_the_card_tells_roles_overlap_figures_leaks_and_licences(stored: StoredModel) -> None:
    text = card_of(stored)
    assert text.startswith("---\nlicense: mit\nlibrary_name: civae\n") and "# Faces, older\n" in text
    assert row(text, "covariates")[1] == "Male, Skin_Tone"
    assert row(text, "descendants")[1] == "Gray_Hair"
    assert "| Young | 0.877 | 0.25 | 0.5 | Overlap is thin. |" in text
    assert "| Young | binary | 0 to 1 | treatment |" in text
    assert row(text, "relative effect error (0 perfect, 1 copying the picture)")[1] == "0.123 (0.1 to 0.15)"
    assert "| Male | -0.5 (-0.75 to -0.25) |" in text
    assert "against what the true counterfactual moves; 0 is ideal" in text
    assert "60 images of synthetic:faces, split test, under Young=flip with τ = 1.0" in text
    for section in ("Data", "Roles of the attributes", "Overlap", "Measured", "Leak", "Limits"):
        assert f"\n## {section}\n" in text
    assert "estimated under assumptions" in text


def test_what_nobody_knows_is_said_to_be_unknown(stored: StoredModel) -> None:
    text = card_of(stored, None)
    assert "no evaluation of this model" in text and "Not measured." in text and "Not reported" in text
    assert "rendered by civae" in row(text, "licence of the images")[1]
    drawn = replace(stored.card, data=stored.card.data | {"name": "synthetic:faces-age"})
    assert (
        "rendered by civae"
        in row(write_card(drawn, None, title="t", licence="mit", data_licence=None), "licence of the images")[
            1
        ]
    )
    foreign = replace(stored, card=replace(stored.card, data=stored.card.data | {"name": "celeba"}))
    assert "**not stated**" in row(card_of(foreign), "licence of the images")[1]
    assert row(card_of(foreign, data_licence="research only"), "licence of the images")[1] == "research only"


def test_names_of_a_table_cannot_break_the_card(stored: StoredModel) -> None:
    roles = replace(
        stored.card.roles, covariates=(Attribute("A|B\n# <script>x</script>", "binary"),), held_out=()
    )
    card: ModelCard = replace(stored.card, roles=roles)
    text = write_card(card, None, title="a\nb", licence="mit", data_licence=None)
    assert "<script>" not in text and "\n# &lt;" not in text and "\n# a b\n" in text
    assert "A\\|B # &lt;script&gt;" in text


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> StoredModel:
    """The model of `trained` in a run of its own, which was never evaluated."""
    checkpoint = tmp_path / "run" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(load_model(trained).path.read_bytes())
    return load_model(checkpoint)


def test_only_an_evaluation_of_this_very_model_counts(
    copied: StoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = copied
    path = tmp_path / "run" / "evaluation.json"
    with caplog.at_level(logging.WARNING, logger="civae_core"):
        assert evaluation_of(stored) is None
        assert "has no evaluation" in caplog.text
        path.write_text(json.dumps(EVALUATION | {"images_seen": {"ours": 64}}))
        assert evaluation_of(stored) is None
        assert "had seen 64 images, not 512" in caplog.text
        path.write_text(json.dumps(EVALUATION | {"images_seen": {"cvae": 512, "ours, seed 7": 512}}))
        assert evaluation_of(stored) is None
        assert "describes cvae, ours, seed 7, not this model" in caplog.text
    path.write_text(json.dumps(EVALUATION))
    assert evaluation_of(stored) == EVALUATION
    for damaged in ("{", "[]", '{"images_seen": 3}'):
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"evaluation.json: not an evaluation"):
            evaluation_of(stored)


def test_an_evaluation_of_several_seeds_counts_and_is_said_to_be_a_mean(
    copied: StoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = EVALUATION["methods"]["ours"]
    other = ours | {
        "relative_effect_error": {"mean": 0.25, "lo": 0.2, "hi": 0.3},
        "leak": {"Male": {"mean": 0.5, "lo": 0.25, "hi": 0.75}},
    }
    seed = copied.card.config.train.seed
    names = [f"ours, seed {seed}", f"ours, seed {seed + 1}"]
    evaluation = EVALUATION | {
        "images_seen": dict.fromkeys(names, 512),
        "methods": {"ours": summarise([ours, other])},
        "predictor": {name: {"Male": {"accuracy": 0.75 + 0.125 * i}} for i, name in enumerate(names)},
    }
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    text = card_of(copied, evaluation_of(copied))
    assert not caplog.records
    error = row(text, "relative effect error (0 perfect, 1 copying the picture)")[1]
    assert error == "0.187 ± 0.0895 (0.15 to 0.225)"
    assert "| Male | 0 ± 0.707 (-0.25 to 0.25) |" in text
    assert (
        text.count("averaged over 2 training runs (± their standard deviation): this model's and those") == 2
    )
    assert "one training run" not in text
    assert "| Male | 0.75 | – | – |" in text, "which the model itself reads"
    told = " ".join(CliRunner().invoke(app, ["info", str(copied.path)]).stdout.split())
    assert "0.187 ± 0.0895 (0.15 to 0.225)" in told and "averaged over 2 training runs" in told


def test_what_cannot_be_written_is_refused(stored: StoredModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--licence MIT License: not a licence identifier"):
        export_hub(stored, tmp_path / "hub", licence="MIT License")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists and is not a model of civae for a hub"):
        export_hub(stored, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_replaced_by_a_later_one(stored: StoredModel, tmp_path: Path) -> None:
    folder = export_hub(stored, tmp_path / "hub")
    (folder / "model.safetensors").write_bytes(b"of yesterday")
    export_hub(stored, folder, licence="mit")
    assert load_model(folder).card == published(stored.card)
    assert (folder / "README.md").read_text().startswith("---\nlicense: mit\n")


def test_a_clone_of_a_repository_is_left_alone(stored: StoredModel, tmp_path: Path) -> None:
    folder = export_hub(stored, tmp_path / "hub")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    before = content(folder)
    with pytest.raises(UsageError, match=r"put there since: \.git, \.gitattributes") as error:
        export_hub(stored, folder)
    assert error.value.hint is not None and "copy the new files from there" in error.value.hint
    assert content(folder) == before


def test_a_card_that_was_edited_is_left_alone(stored: StoredModel, tmp_path: Path) -> None:
    folder = export_hub(stored, tmp_path / "hub")
    with (folder / "README.md").open("a") as card:
        card.write("It knows no children.")
    before = content(folder)
    with pytest.raises(UsageError, match=r"changed or put there since: README\.md"):
        export_hub(stored, folder)
    assert content(folder) == before


def test_the_export_of_an_older_version_is_replaced_with_its_card(
    stored: StoredModel, tmp_path: Path
) -> None:
    folder = export_hub(stored, tmp_path / "hub")
    config = json.loads((folder / "config.json").read_text())
    del config["card_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("a card of before")
    export_hub(stored, folder)
    assert (folder / "README.md").read_text() != "a card of before"


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', '["civae"]', "{", ""])
def test_the_model_of_another_program_is_left_alone(config: str, stored: StoredModel, tmp_path: Path) -> None:
    for name, text in (("config.json", config), ("model.safetensors", "weights"), ("README.md", "BERT")):
        (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(UsageError, match="exists and is not a model of civae for a hub"):
        export_hub(stored, tmp_path)
    assert content(tmp_path) == before


def test_the_command_says_where_and_whether_it_knew_figures(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    arguments = ["export", str(trained), "--format", "hf", "--out", str(out), "--licence", "mit", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--data-licence", "mine"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"format": "hf", "output": str(out), "evaluated": False}
    assert "| licence of the images | mine |" in (out / "README.md").read_text()
    refused = CliRunner().invoke(app, ["export", str(trained), "--licence", "mit"])
    assert refused.exit_code == 2 and "--licence mit: has no effect with --format onnx" in refused.stderr


def test_the_card_says_how_many_pictures_were_learned_and_how_often(
    stored: StoredModel, faces: PreparedData
) -> None:
    count = len(faces.rows("train"))
    assert stored.card.photographs == count
    seen = stored.card.images_seen
    told = row(card_of(stored), "images shown in training")[1]
    assert told == f"{seen:,}: each of {count:,} some {seen / count:.3g} times"
    older = replace(stored, card=replace(stored.card, photographs=None))
    assert row(card_of(older), "images shown in training")[1] == f"{seen:,}"
    assert "photographs" not in json.loads(older.card.to_json()), "a file from before stays what it was"


@pytest.mark.parametrize(
    ("preprocessing", "told"),
    [
        ({"size": 64, "channels": 3}, "64 × 64 RGB, from its largest centred square"),
        (
            {"size": 64, "channels": 1, "crop": 150, "crop_of": 178},
            "64 × 64 grey, from a centred square of 150 pixels where the short side has 178",
        ),
    ],
)
def test_the_card_says_what_a_picture_becomes(
    preprocessing: dict[str, Any], told: str, stored: StoredModel
) -> None:
    shown = replace(stored, card=replace(stored.card, preprocessing=preprocessing))
    assert row(card_of(shown), "a picture becomes")[1] == told


@pytest.mark.parametrize("count", [0, -3, 2.5, True, "many"])
def test_an_absurd_number_of_photographs_is_refused(count: Any) -> None:
    from civae_core.model.stored import _count

    with pytest.raises(ValueError, match="photographs"):
        _count(count)
