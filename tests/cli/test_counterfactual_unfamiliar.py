"""civae counterfactual and civae info: what is said of pictures that are unlike those of training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from asking import civae, records
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.model.familiar import Familiarity
from civae_core.model.stored import load_model, save_model

pytestmark = pytest.mark.usefixtures("sure")
WARNING = "unlike what the model learned from"


@pytest.fixture
def models(trained: Path, tmp_path: Path) -> dict[str, Path]:
    """The trained model with limits that every picture exceeds, and that none does."""
    stored = load_model(trained)
    files = {}
    for name, limit in (("strict", 1e-6), ("lenient", 1.0)):
        known = Familiarity(limit / 2, limit, 0.99, 1234, "valid")
        files[name] = tmp_path / f"{name}.safetensors"
        save_model(stored.model, replace(stored.card, familiarity=known), files[name])
    return files


def test_one_picture_beyond_the_limit_is_named_once(
    models: dict[str, Path], photo_files: Path, tmp_path: Path
) -> None:
    arguments = (photo_files / "0.png", "--treat", "Young=0", "--treat", "Young=1", "--out", tmp_path / "out")
    code, stdout, stderr = civae(*arguments, "--model", models["strict"])
    found = records(stdout)
    assert (
        code == 0 and stderr.count(WARNING) == 1 and f"warning: {photo_files / '0.png'}: {WARNING}" in stderr
    )
    assert "\nhint: crop pictures like the training images" in stderr
    assert len(found) == 2 and found[0]["unfamiliar"] == found[1]["unfamiliar"] > 100
    assert WARNING in civae(*arguments, "--model", models["strict"], "-q")[2]
    code, stdout, stderr = civae(*arguments, "--model", models["lenient"])
    assert (code, stderr) == (0, "") and not any("unfamiliar" in record for record in records(stdout))


def test_many_are_counted_and_failures_are_none_of_them(
    models: dict[str, Path], photo_files: Path, tmp_path: Path
) -> None:
    (photo_files / "broken.png").write_bytes(b"no picture")
    code, stdout, stderr = civae(
        photo_files, "--model", models["strict"], "--treat", "Young=0", "--out", tmp_path / "out", "--json"
    )
    assert code == 3 and stderr.count(WARNING) == 1
    assert "warning: 3 of 3 pictures are unlike what the model learned from" in stderr
    assert all(record["unfamiliar"] > 1 for record in json.loads(stdout)["results"])


def test_a_file_that_looks_like_a_photograph_says_it_itself(
    models: dict[str, Path], photo_files: Path, tmp_path: Path
) -> None:
    for name, said in (("strict", True), ("lenient", False)):
        arguments = ("--treat", "Young=flip", "--native", "--out", tmp_path / name)
        (record,) = records(civae(photo_files / "0.png", "--model", models[name], *arguments)[1])
        with Image.open(record["output"]) as picture:
            assert (", a picture unlike those of training; not a" in picture.text["Description"]) == said


def test_info_shows_what_held_out_images_came_to(models: dict[str, Path], trained: Path) -> None:
    def info(*arguments: object) -> str:
        return CliRunner().invoke(app, ["info", *map(str, arguments)]).stdout

    (line,) = [line for line in info(models["strict"]).splitlines() if line.startswith("reconstructs")]
    assert line.endswith(
        "99% of images with a mean squared error up to 1e-06, half up to 5e-07 (1,234 of valid)"
    )
    facts = json.loads(info(models["strict"], "--json"))["familiarity"]
    assert facts == {"median": 5e-07, "limit": 1e-06, "level": 0.99, "images": 1234, "split": "valid"}
    assert "reconstructs" not in info(trained) and "familiarity" not in json.loads(info(trained, "--json"))
