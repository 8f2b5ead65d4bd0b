"""civae train-scorer: a path or JSON on stdout, a table on stderr, a file whose card says how well it reads."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data import PreparedData
from civae_core.yardstick import load_yardstick
from civae_core.yardstick.fit import IMAGES


def civae(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train-scorer", *map(str, arguments)], env={"COLUMNS": "80"})
    return result.exit_code, result.stdout, result.stderr


def test_a_scorer_is_trained_tried_and_written(faces: PreparedData, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scorer.safetensors"
    roles = ["--treatment", "Young", "--descendant", "Gray_Hair", "--descendant", "Wrinkles"]
    code, stdout, stderr = civae(
        faces.path, "--out", out, "--images", 64, "--seed", 3, *roles, "--on", trained
    )
    assert (code, stdout) == (0, f"{out}\n")
    card = load_yardstick(out).card
    assert (card.images, card.seed) == (64, 3)
    assert card.roles == {"treatments": ["Young"], "descendants": ["Gray_Hair", "Wrinkles"]}
    assert set(card.reconstructions) == {str(trained)}
    assert card.reconstructions[str(trained)]["Young"]["n"] == card.photos["Young"]["n"] == 30
    assert card.reconstructions[str(trained)] != card.photos
    lines = stderr.splitlines()
    row = next(line for line in lines if line.startswith("Young"))
    young = card.photos["Young"]
    assert f"{young['accuracy']:.1%} · {young['auc']:.3f}" in row
    assert f"{young['worst_group_accuracy']:.1%}" in row
    assert f"{card.blurred['Young']['accuracy']:.1%}" in row
    assert any(line.startswith("Skin_Tone") and "R²" in line for line in lines)
    assert "30 held-out images" in stderr and max(map(len, lines)) <= 80


def test_json_says_what_the_file_says(faces: PreparedData, tmp_path: Path) -> None:
    out = tmp_path / "scorer.safetensors"
    code, stdout, stderr = civae(faces.path, "--out", out, "--images", 32, "--json", "-q")
    found, kept = json.loads(stdout), load_yardstick(out)
    assert (code, stderr, stdout.count("\n")) == (0, "", 1)
    assert found["scorer"] == str(out) and found["fingerprint"] == kept.fingerprint
    assert found["roles"] == {"treatments": [], "descendants": []}
    assert found["photos"] == kept.card.photos and found["blurred"] == kept.card.blurred
    assert found["attributes"] == [attribute.name for attribute in kept.attributes]


def test_roles_come_from_a_config_and_flags_win(faces: PreparedData, tmp_path: Path) -> None:
    config = tmp_path / "train.yml"
    config.write_text("data: {path: elsewhere, treatment: Male, descendants: [Beard, Receding_Hairline]}\n")
    arguments = [faces.path, "--out", tmp_path / "s", "--images", 32, "--config", config, "--json", "-q"]
    found = json.loads(civae(*arguments)[1])
    assert found["roles"] == {"treatments": ["Male"], "descendants": ["Beard", "Receding_Hairline"]}
    found = json.loads(civae(*arguments, "--treatment", "Young", "--descendant", "Gray_Hair")[1])
    assert found["roles"] == {"treatments": ["Young"], "descendants": ["Gray_Hair"]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--treatment", "Jung"], 2, "data.treatment: unknown attribute 'Jung' (did you mean Young?)"),
        (["--descendant", "Gray_Hair"], 2, "--descendant Gray_Hair: needs a treatment"),
        (
            ["--treatment", "Young", "--descendant", "Young"],
            2,
            "cannot be both in treatment and in descendants",
        ),
        (["--on", "gone"], 2, "gone: no such run, checkpoint or model file"),
        (["--seed", str(2**63)], 2, f"--seed {2**63}: has more than 63 bits"),
        (["--out", "."], 2, "--out .: is a folder"),
        (["--out", "{}/notes.txt"], 2, "notes.txt: exists and is not a scorer"),
        (["--out", "{}/notes.txt/scorer"], 1, "cannot write {}/notes.txt: File exists"),
        (["--config", "{}/gone.yml"], 2, "gone.yml"),
    ],
)
def test_refusals_come_before_the_work(
    faces: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained before it was refused")

    monkeypatch.setattr("civae_core.yardstick.train_yardstick", never)
    (tmp_path / "notes.txt").write_text("mine")
    given = [argument.format(tmp_path) for argument in arguments]
    found, stdout, stderr = civae(faces.path, "--out", tmp_path / "new", *given)
    assert (found, stdout) == (code, "") and message.format(tmp_path) in stderr
    assert (tmp_path / "notes.txt").read_text() == "mine" and not (tmp_path / "new").exists()


def test_models_of_other_images_are_refused(trained: Path, tmp_path: Path) -> None:
    prepare = ["prepare-data", "synthetic:faces", "--n", "30", "--size", "48", "--workers", "1", "-q"]
    assert CliRunner().invoke(app, [*prepare, "--out", str(tmp_path / "data")]).exit_code == 0
    code, stdout, stderr = civae(tmp_path / "data", "--out", tmp_path / "new", "--on", trained)
    assert (code, stdout) == (2, "") and "takes images of 3×32×32" in stderr
    assert not (tmp_path / "new").exists()


def test_an_earlier_scorer_may_be_replaced(faces: PreparedData, tmp_path: Path) -> None:
    out = tmp_path / "scorer.safetensors"
    for seed in (0, 1):
        assert civae(faces.path, "--out", out, "--images", 32, "--seed", seed, "-q")[0] == 0
    assert load_yardstick(out).card.seed == 1


@pytest.mark.parametrize("command", ["train-scorer", "evaluate", "benchmark"])
def test_the_help_names_the_images_that_are_learned_from_by_default(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert f"[default: {IMAGES}]" in " ".join(text.split())
