"""Whole commands on numbers that are none, and attribute names that would leave the output folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.attributes import Attribute
from civae_core.config.schema import Config
from civae_core.model.stored import ModelCard, load_model, save_model


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.stderr and "internal error" not in result.stderr, result.stderr
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), (120, 90, 80)).save(path)
    return path


@pytest.mark.parametrize(
    "more",
    [
        ["--treat", "Young=1e39"],
        ["--treat", "Young=nan"],
        ["--treat", "Young=-1e400:1:3"],
        ["--treat", "Young=0", "--strength", "inf"],
        ["--treat", "Young=0", "--strength", "nan"],
        ["--treat", "Young=0", "--noise", "nan"],
        ["--treat", "Young=0", "--attr", "Male=1e39"],
        ["--treat", "Young=0", "--attr", "Male=inf"],
        ["--treat", "Young=3e38"],
        ["--treat", "Young=0", "--attr", "Male=3e38"],
    ],
    ids=" ".join,
)
def test_numbers_that_no_picture_comes_of_are_usage_errors(
    trained: Path, photo: Path, tmp_path: Path, more: list[str]
) -> None:
    out = tmp_path / "out"
    code, stdout, errors = run("counterfactual", photo, "--model", trained, "--out", out, *more)
    assert code == 2, errors
    assert stdout == "" and not list(out.glob("*.png"))


def test_notes_that_no_png_can_hold_cost_a_photograph_of_its_own_size_nothing(
    trained: Path, photo: Path, tmp_path: Path
) -> None:
    """A resolution of 0/0, and text in place of a colour profile; the next picture is answered too."""
    notes = ImageFileDirectory_v2()
    for tag, kind, value in ((282, 5, IFDRational(0, 0)), (283, 5, IFDRational(0, 0)), (34675, 2, "abc")):
        notes.tagtype[tag] = kind
        notes[tag] = value
    Image.new("RGB", (50, 40), (120, 90, 80)).save(tmp_path / "odd.tif", tiffinfo=notes)
    words = (
        "--model",
        trained,
        "--treat",
        "Young=0",
        "--attr",
        "Male=1",
        "--native",
        "--out",
        tmp_path / "out",
    )
    code, stdout, errors = run("counterfactual", tmp_path / "odd.tif", photo, *words)
    assert code == 0, errors
    found = [json.loads(line) for line in stdout.splitlines()]
    assert [Image.open(record["output"]).size for record in found] == [(50, 40), (40, 40)]
    assert not {"dpi", "icc_profile"} & Image.open(found[0]["output"]).info.keys()


def test_values_of_a_table_are_held_against_training_as_typed_ones_are(
    trained: Path, photo: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("file_name,Male\nphoto.png,7\n")
    arguments = ["counterfactual", photo, "--model", trained, "--out", tmp_path / "out", "--treat", "Young=0"]
    code, _, errors = run(*arguments, "--attr", "Male=7")
    assert code == 0 and "Male=7 (training saw 0 to 1)" in errors
    code, _, errors = run(*arguments, "--attrs", table)
    assert code == 0 and "Male=7 (training saw 0 to 1)" in errors
    table.write_text("file_name,Male\nphoto.png,1e39\n")
    code, _, errors = run(*arguments, "--attrs", table)
    assert code == 3 and "table.csv:2: Male is infinite or too large" in errors


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/civae-escaped", "..", "a\\..\\b", "x" * 200, "<b>$x^$"]
)
def test_a_model_whose_attribute_is_a_path_writes_within_its_output(
    trained: Path, photo: Path, tmp_path: Path, name: str
) -> None:
    stored = load_model(trained)
    young = stored.card.roles.treatments[0]
    roles = stored.card.roles.__class__(
        (Attribute(name, "binary", young.low, young.high, young.mean, young.std),),
        stored.card.roles.covariates,
    )
    config = stored.card.config.model_dump()
    config["data"] |= {"treatment": [name], "descendants": []}
    card = ModelCard(
        Config.model_validate(config), roles, stored.card.preprocessing, stored.card.images_seen, stored.card.data,
        stored.card.subjects,
    )  # fmt: skip
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    save_model(stored.model, card, tmp_path / "model.safetensors")
    before = set(tmp_path.rglob("*"))
    model = tmp_path / "model.safetensors"
    for more in ([], ["--strip"]):
        code, out, errors = run(
            "counterfactual",
            photo,
            "--model",
            model,
            "--out",
            inside / "out",
            "--treat",
            f"{name}=flip",
            *more,
        )
        assert code == 0, errors
        assert Path(json.loads(out)["output"]).is_relative_to(inside / "out")
    code, _, errors = run("sample", model, "--n", 1, "--out", inside / "drawn", "--treat", f"{name}=0")
    assert code == 0, errors
    new = set(tmp_path.rglob("*")) - before
    assert new and all(path.is_relative_to(inside) for path in new)
    assert not Path("/tmp/civae-escaped").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card["config"]["model"].update(latent=60_000, width=4_000), "does not fit the model"),
        (lambda card: card["config"]["model"].update(latent=10**9), "its metadata is damaged"),
        (lambda card: card["preprocessing"].update(size=10**6), "its metadata is damaged"),
        (lambda card: card["preprocessing"].update(size=4_096), "does not fit the model"),
        (lambda card: card.update(format=-1), "its metadata is damaged"),
        (lambda card: card.update(format=True), "its metadata is damaged"),
        (lambda card: card.update(images_seen="many"), "its metadata is damaged"),
        (lambda card: card.update(subjects=[[0.0]]), "its metadata is damaged"),
        (lambda card: card["roles"]["treatments"][0].update(name="Elder"), "its metadata is damaged"),
        (lambda card: card["roles"]["treatments"][0].update(kind="odd"), "its metadata is damaged"),
        (lambda card: card["roles"]["covariates"][1].update(std=1e-40), "its metadata is damaged"),
        (lambda card: card["roles"]["covariates"][1].update(mean="x"), "its metadata is damaged"),
    ],
    ids=range(12),
)
def test_cards_that_ask_for_the_absurd(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, object]], None], reason: str
) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy((trained / "checkpoints" / "last" / "model.safetensors").resolve(), file)
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    card = json.loads(header["__metadata__"]["civae"])
    change(card)
    header["__metadata__"]["civae"] = json.dumps(card)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    code, _, errors = run("sample", file, "--n", 1, "--out", tmp_path / "out")
    assert code == 3 and reason in errors, errors
    assert not (tmp_path / "out").exists()
