"""civae counterfactual: where pictures come from, what is said about each, and what lands in the folder."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import civae, pixels, records
from PIL import Image

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.figures import strips
from civae_core.figures.strips import strip
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, load_model, save_model

KEYS = ["input", "output", "treat", "factual", "predicted", "noise", "in_range"]
pytestmark = pytest.mark.usefixtures("sure")
DATA = {"name": "faces", "path": "data", "fingerprint": "ab" * 32}


@pytest.fixture
def two_treatments(
    tmp_path: Path, make_config: Callable[..., Config], make_model: Callable[..., IntactVAE]
) -> Path:
    """A model file with untrained weights, treatments Young and Hair/Dye_Dose, no predictor."""
    roles = AttributeRoles(
        treatments=(
            Attribute("Young", "binary"),
            Attribute("Hair/Dye_Dose", "continuous", 0.0, 10.0, 5.0, 2.0),
        ),
        covariates=(Attribute("Male", "binary"),),
    )
    config = make_config(model={"predictor": False})
    data = config.data.model_copy(update={"treatment": ["Young", "Hair/Dye_Dose"], "covariates": ["Male"]})
    config = config.model_copy(update={"data": data})
    card = ModelCard(config, roles, {"size": 32, "channels": 3, "crop": None}, 0, DATA, [[0.0, 5.0, 1.0]])
    path = tmp_path / "two.safetensors"
    save_model(make_model(size=32, perturbed=True, assigned=roles, predictor=False), card, path)
    return path


def test_one_json_line_a_picture_and_nothing_else_on_stdout(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = civae(
        photo_files / "0.png", "--model", trained, "--treat", "Young=flip", "--out", out
    )
    assert (code, stderr) == (0, "")
    (record,) = records(stdout)
    assert list(record) == KEYS
    assert record["input"] == str(photo_files / "0.png")
    assert record["treat"] == {"Young": 1 - record["factual"]["Young"]}
    assert list(record["factual"]) == ["Young", "Male", "Skin_Tone"]
    assert record["predicted"].keys() == record["factual"].keys(), "nothing was stated"
    assert 0 <= record["predicted"]["Young"] <= 1
    assert record["factual"]["Young"] == float(record["predicted"]["Young"] >= 0.5)
    assert record["predicted"]["Skin_Tone"] is None, "a continuous value has no probability"
    assert (record["noise"], record["in_range"]) == (1.0, True)
    assert Path(record["output"]).parent == out
    assert pixels(record["output"]).shape == (32, 32, 3)


def test_json_is_one_object(trained: Path, photo_files: Path, tmp_path: Path) -> None:
    arguments = (photo_files, "--model", trained, "--treat", "Young=0", "--out", tmp_path / "out")
    lines = records(civae(*arguments)[1])
    code, stdout, _ = civae(*arguments, "--json")
    assert code == 0 and stdout.count("\n") == 1
    assert json.loads(stdout) == {"results": lines, "failed": []}
    assert [Path(record["input"]).name for record in lines] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("objective", ["intact", "original"])
def test_a_null_intervention_returns_the_input_to_the_pixel(
    trained: Path, photo_files: Path, tmp_path: Path, objective: str
) -> None:
    if objective == "original":
        trained = other_objective(trained, tmp_path / "original.safetensors")
    arguments = (photo_files, "--model", trained, "--out", tmp_path / "out", "--attr", "Young=1", "--treat")
    _, stdout, _ = civae(*arguments, "Young=1", "--strength", 2)
    same = records(stdout)
    assert len(same) == 3 and all(record["strength"] == 2 for record in same)
    for record in same:
        np.testing.assert_array_equal(pixels(record["output"]), pixels(record["input"]))
    _, stdout, _ = civae(*arguments, "Young=1", "--noise", 0)
    blurry = records(stdout)
    assert all(record["noise"] == 0 and "strength" not in record for record in blurry)
    assert all((pixels(r["output"]) != pixels(r["input"])).any() for r in blurry)


def other_objective(run: Path, file: Path) -> Path:
    """The run's weights, without the prior's, under a card that says `objective: original`."""
    stored = load_model(run)
    values = stored.card.config.model_dump() | {"objective": "original"}
    values["model"] |= {"prior": "standard", "sigma": "fixed"}
    values["loss"]["weights"] = "none"
    card = dataclasses.replace(stored.card, config=Config.model_validate(values))
    model = card.build()
    model.load_state_dict(stored.model.state_dict(), strict=False)
    save_model(model, card, file)
    return file


def test_strength_scales_the_effect_of_every_objective(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    for model in (trained, other_objective(trained, tmp_path / "original.safetensors")):
        arguments = (photo_files / "0.png", "--model", model, "--attr", "Young=1", "--treat", "Young=-4")
        weak = records(civae(*arguments, "--strength", 0, "--out", tmp_path / "weak")[1])[0]
        strong = records(civae(*arguments, "--strength", 3, "--out", tmp_path / "strong")[1])[0]
        np.testing.assert_array_equal(pixels(weak["output"]), pixels(weak["input"]))
        assert (pixels(strong["output"]) != pixels(strong["input"])).any()


def test_a_sweep_marks_and_warns_of_values_beyond_training(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    arguments = (
        photo_files / "0.png",
        "--model",
        trained,
        "--treat",
        "Young=-1:3:7",
        "--out",
        tmp_path / "out",
    )
    for quiet in ([], ["-q"]):
        code, stdout, stderr = civae(*arguments, *quiet)
        assert code == 0 and stderr.count("warning: ") == 1
        assert "Young set beyond what training saw" in stderr, "-q silences remarks, not warnings"
    found = records(stdout)
    values = [record["treat"]["Young"] for record in found]
    assert values == pytest.approx([-1, -1 / 3, 1 / 3, 1, 5 / 3, 7 / 3, 3], abs=1e-5)
    assert [record["in_range"] for record in found] == [0 <= value <= 1 for value in values]
    assert len({record["output"] for record in found}) == len(list((tmp_path / "out").iterdir())) == 7


def test_a_strip_is_one_labelled_picture(trained: Path, photo_files: Path, tmp_path: Path) -> None:
    arguments = ("--model", trained, "--treat", "Young=0:1:3", "--strip", "--out", tmp_path / "out")
    code, stdout, _ = civae(photo_files / "0.png", photo_files / "1.png", *arguments)
    found = records(stdout)
    assert code == 0 and len(found) == len(list((tmp_path / "out").iterdir())) == 2
    assert found[0]["treat"] == {"Young": [0.0, 0.5, 1.0]} and list(found[0]) == KEYS
    with Image.open(found[0]["output"]) as picture:
        # Original, reconstruction and three doses, magnified fourfold, under a line of text.
        assert picture.width > 5 * 128 and 128 < picture.height < 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), None),
        (("--noise", 0), "noise τ = 0"),
        (("--noise", 0.25, "--strength", 2), "noise τ = 0.25, strength = 2 (1 is the model's estimate)"),
    ],
)
def test_a_strip_says_over_itself_what_is_not_the_default(
    trained: Path,
    photo_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    said: str | None,
) -> None:
    titles = []

    def drawn(*arguments: Any, title: str | None = None, **more: Any) -> Image.Image:
        titles.append(title)
        return strip(*arguments, title=title, **more)

    monkeypatch.setattr(strips, "strip", drawn)
    arguments = ("--model", trained, "--treat", "Young=0", "--strip", "--out", tmp_path / "out")
    assert civae(photo_files / "0.png", *arguments, *options)[0] == 0
    assert titles == [said]


def test_prepared_images_bring_their_labels(trained: Path, faces: PreparedData, tmp_path: Path) -> None:
    arguments = ("--model", trained, "--treat", "Young=flip", "--out", tmp_path / "out")
    code, stdout, stderr = civae(f"{faces.path}#test[0:3]", *arguments)
    found = records(stdout)
    rows = faces.rows("test")[:3]
    assert (code, stderr) == (0, "")
    assert [record["input"] for record in found] == [f"{faces.path}#test[{i}]" for i in range(3)]
    assert [record["factual"]["Young"] for record in found] == faces.column("Young")[rows].tolist()
    assert [record["treat"]["Young"] for record in found] == (1 - faces.column("Young")[rows]).tolist()
    assert all(record["predicted"] == {} for record in found)
    one = records(civae(f"{faces.path}#test[2]", *arguments)[1])
    assert one == found[2:]
    everything = records(civae(f"{faces.path}#valid", *arguments)[1])
    assert len(everything) == len(faces.rows("valid"))


def test_pictures_come_from_files_folders_patterns_and_standard_input(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    (photo_files / "notes.txt").write_text("not looked at in a folder")
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out")
    wanted = [str(photo_files / f"{number}.png") for number in range(3)]

    def inputs(*images: object, stdin: str | None = None) -> list[str]:
        code, stdout, _ = civae(*images, *arguments, stdin=stdin)
        assert code == 0
        return [record["input"] for record in records(stdout)]

    assert inputs(photo_files) == wanted
    assert inputs(photo_files / "[01].png") == wanted[:2]
    assert inputs("-", stdin=f"{wanted[2]}\n\n{wanted[0]}\r\n") == [wanted[2], wanted[0]]
    assert inputs(photo_files / "2.png", "-", photo_files / "*0.png", stdin=wanted[1]) == [
        wanted[i] for i in (2, 1, 0)
    ]


@pytest.mark.parametrize(
    ("images", "message", "hint"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file, folder or pattern", ""),
        (["*.jpg"], "*.jpg: no file matches this pattern", ""),
        (["hollow"], "hollow: a folder without images", ".jpeg"),
        (["holl*"], "holl*: no file matches this pattern", ""),
        (["-"], "-: standard input names no picture", "one path per line"),
    ],
)
def test_arguments_that_name_no_picture_are_refused(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: list[str],
    message: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    code, stdout, stderr = civae(*images, "--model", trained, "--treat", "Young=0", stdin="\n")
    assert (code, stdout) == (2, ""), stderr
    assert stderr.startswith(f"error: {message}") and hint in stderr.partition("hint: ")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["hollow"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--treat", "Young=1e39"), "--treat Young=1e39: '1e39' is beyond 3.4e+38"),
        (("--treat", "Young=1e30"), "the model gives no finite image under Young=1e+30"),
        (("--treat", "Young=0", "--attr", "Male=-1e39"), "--attr Male=-1e39: '-1e39' is beyond"),
        (("--treat", "Young=0", "--strength", "inf"), "--strength"),
        (("--treat", "Young=0", "--strength", "1001"), "--strength"),
        (("--treat", "Young=0", "--strength", "nan"), "--strength"),
        (("--treat", "Young=0", "--noise", "nan"), "--noise"),
    ],
)
def test_numbers_out_of_all_proportion_are_refused(
    trained: Path, photo_files: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = civae(photo_files / "0.png", "--model", trained, *arguments, "--out", out)
    assert (code, stdout) == (2, ""), stderr
    assert message in stderr and "internal" not in stderr
    assert not out.exists()


def test_several_treatments_are_set_together(two_treatments: Path, photo_files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    factual = ("--attr", "Young=1", "--attr", "Hair/Dye_Dose=5", "--attr", "Male=0")
    arguments = (photo_files / "0.png", "--model", two_treatments, *factual, "--out", out)
    code, stdout, stderr = civae(
        *arguments, "--treat", "Young=flip", "--treat", "Hair/Dye_Dose=4:12:2", "--treat", "Young=1"
    )
    found = records(stdout)
    assert code == 0
    assert [record["treat"] for record in found] == [
        {"Young": 0.0, "Hair/Dye_Dose": 4.0},
        {"Young": 0.0, "Hair/Dye_Dose": 12.0},
        {"Young": 1.0, "Hair/Dye_Dose": 4.0},
        {"Young": 1.0, "Hair/Dye_Dose": 12.0},
    ]
    assert [record["in_range"] for record in found] == [True, False, True, False]
    assert "warning: Hair/Dye_Dose set beyond" in stderr and "Young" not in stderr
    names = sorted(path.name for path in out.iterdir())
    assert [Path(record["output"]).name in names for record in found] == [True] * 4
    assert names[0] == "0__Young=0_Hair-Dye_Dose=12.png", "a slash in a name opens no folder"
    alone = records(civae(*arguments, "--treat", "Young=0")[1])
    assert alone[0]["treat"] == {"Young": 0.0}, "the other treatment keeps its value"
    assert (pixels(alone[0]["output"]) != pixels(found[1]["output"])).any()


def test_without_a_predictor_every_value_must_be_stated(
    two_treatments: Path, photo_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = civae(
        photo_files / "0.png",
        "--model",
        two_treatments,
        "--treat",
        "Young=0",
        "--attr",
        "Young=1",
        "--out",
        out,
    )
    assert (code, stdout) == (2, ""), stderr
    assert "Hair/Dye_Dose, Male not stated" in stderr and "--attrs TABLE" in stderr.partition("hint: ")[2]
    assert not out.exists()


def test_steps_of_a_fine_sweep_have_files_of_their_own(
    two_treatments: Path, photo_files: Path, tmp_path: Path
) -> None:
    factual = ("--attr", "Young=1", "--attr", "Hair/Dye_Dose=5", "--attr", "Male=0")
    arguments = ("--model", two_treatments, *factual, "--out", tmp_path / "out")
    code, stdout, _ = civae(photo_files / "0.png", *arguments, "--treat", "Hair/Dye_Dose=100000:100003:4")
    outputs = {record["output"] for record in records(stdout)}
    assert code == 0 and len(outputs) == 4
    assert "0__Hair-Dye_Dose=100001.png" in {Path(output).name for output in outputs}
    code, stdout, _ = civae(photo_files / "0.png", *arguments, "--treat", "Hair/Dye_Dose=1e6:1000001:4")
    outputs = {record["output"] for record in records(stdout)}
    assert code == 0 and len(outputs) == 4, "as many digits as tell them apart"


def test_doses_in_a_small_unit_are_told_as_they_are(
    make_config: Callable[..., Config],
    make_model: Callable[..., IntactVAE],
    photo_files: Path,
    tmp_path: Path,
) -> None:
    dose = Attribute("Dose", "continuous", 4e-7, 7e-7, 5.5e-7, 1e-7)
    roles = AttributeRoles(treatments=(dose,), covariates=())
    config = make_config(model={"predictor": False})
    data = config.data.model_copy(update={"treatment": ["Dose"], "covariates": []})
    config = config.model_copy(update={"data": data})
    card = ModelCard(config, roles, {"size": 32, "channels": 3, "crop": None}, 0, DATA, [[5e-7]])
    model = tmp_path / "small.safetensors"
    save_model(make_model(size=32, perturbed=True, assigned=roles, predictor=False), card, model)
    arguments = ("--model", model, "--attr", "Dose=5.5e-7", "--treat", "Dose=4e-7:7e-7:4", "--out", tmp_path)
    code, stdout, stderr = civae(photo_files / "0.png", *arguments)
    found = records(stdout)
    assert (code, stderr) == (0, "")
    assert [record["treat"]["Dose"] for record in found] == [4e-7, 5e-7, 6e-7, 7e-7]
    assert all(record["in_range"] and record["factual"] == {"Dose": 5.5e-7} for record in found)
    names = [Path(record["output"]).name for record in found]
    assert names == [f"0__Dose={number}e-07.png" for number in (4, 5, 6, 7)]


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_every_file_says_what_it_is(exported: Path, photo_files: Path, tmp_path: Path, engine: str) -> None:
    arguments = ("--model", exported, "--attr", "Young=1", "--engine", engine, "--out", tmp_path / "out")

    def notes(*more: object) -> list[str]:
        found = records(civae(photo_files / "0.png", *arguments, "--treat", "Young=0:2:2", *more)[1])
        return [Image.open(record["output"]).info["Description"] for record in found]

    told = "Counterfactual estimated by civae: {}; not a photograph"
    beyond = "Young beyond what training saw"
    assert notes() == [
        told.format("Young=0 instead of Young=1, noise=1, within what training saw"),
        told.format(f"Young=2 instead of Young=1, noise=1, {beyond}"),
    ]
    assert notes("--strip", "--noise", 0.5) == [
        told.format(f"Young=0 | Young=2 instead of Young=1, noise=0.5, {beyond}")
    ]
    assert notes("--attr", "Male=3") == [
        told.format("Young=0 instead of Young=1, noise=1, Male beyond what training saw"),
        told.format("Young=2 instead of Young=1, noise=1, Young, Male beyond what training saw"),
    ], "nor has it seen such subjects"


def test_answers_under_other_conditions_have_files_of_their_own(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (photo_files / "0.png", "--model", trained, "--treat", "Young=0", "--out", out)
    for more in ((), ("--noise", 0), ("--noise", 0.25, "--strength", 2), ("--noise", 0, "--strip")):
        assert civae(*arguments, *more)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "0__Young=0.png",
        "0__Young=0__noise=0.25__strength=2.png",
        "0__Young=0__noise=0.png",
        "0__strip__noise=0.png",
    ]
    assert (pixels(out / "0__Young=0.png") != pixels(out / "0__Young=0__noise=0.png")).any()


def test_pictures_of_one_name_do_not_overwrite_each_other(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photo_files / "1.png", other / "0.png")
    arguments = ("--model", trained, "--treat", "Young=0", "--noise", 1, "--out", tmp_path / "out")
    code, stdout, _ = civae(photo_files / "0.png", other / "0.png", *arguments)
    first, second = records(stdout)
    assert code == 0 and first["output"] != second["output"]
    assert (pixels(first["output"]) != pixels(second["output"])).any()


def test_the_default_model_is_the_environments_or_the_newest_run(
    trained: Path, photo_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIVAE_MODEL", raising=False)
    arguments = (photo_files / "0.png", "--treat", "Young=flip")
    code, stdout, stderr = civae(*arguments)
    assert (code, stdout) == (2, "") and "$CIVAE_MODEL is not set and runs/ contains no trained run" in stderr
    assert "hint: name a run with --model" in stderr
    for age, name in enumerate(("newer", "older")):
        folder = tmp_path / "runs" / name / "checkpoints" / "last"
        folder.mkdir(parents=True)
        shutil.copy(trained / "checkpoints" / "last" / "model.safetensors", folder)
        os.utime(folder / "model.safetensors", (1_000_000 - age, 1_000_000 - age))
    code, stdout, stderr = civae(*arguments)
    assert (code, stderr) == (0, "model: runs/newer\n") and len(records(stdout)) == 1
    assert Path(records(stdout)[0]["output"]).parts[0] == "counterfactuals"
    monkeypatch.setenv("CIVAE_MODEL", str(trained))
    assert civae(*arguments)[2] == f"model: {trained}\n"
    assert civae(*arguments, "--model", "runs/older")[2] == ""
    monkeypatch.setenv("CIVAE_MODEL", "runs/gone")
    code, stdout, stderr = civae(*arguments)
    assert (code, stdout) == (2, ""), stderr
    assert stderr.startswith("error: $CIVAE_MODEL runs/gone: no such run")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_corrupt_picture_among_good_ones_costs_only_itself(
    trained: Path, photo_files: Path, tmp_path: Path, as_json: bool
) -> None:
    (photo_files / "1.png").write_bytes((photo_files / "1.png").read_bytes()[:500])
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out", "-q")
    code, stdout, stderr = civae(photo_files, *arguments, *(["--json"] if as_json else []))
    assert code == 3
    assert f"warning: skipped {photo_files / '1.png'}: damaged image" in stderr
    assert (
        "error: 1 of 3 pictures could not be used; the others were written\n\nhint: copy or download"
        in stderr
    )
    if as_json:
        result = json.loads(stdout)
        assert len(result["failed"]) == 1 and str(photo_files / "1.png") in result["failed"][0]
        found = result["results"]
    else:
        found = records(stdout)
    assert [Path(record["input"]).name for record in found] == ["0.png", "2.png"]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_pictures_that_fail_for_different_reasons_are_told_apart_above(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    (photo_files / "1.png").write_bytes(b"")
    (photo_files / "2.png").write_bytes(b"text")
    bad = (photo_files / "1.png", photo_files / "2.png")
    code, stdout, stderr = civae(*bad, "--model", trained, "--treat", "Young=0", "--out", tmp_path / "out")
    assert (code, stdout) == (3, "") and stderr.count("warning: skipped") == 2
    assert (
        "error: none of 2 pictures could be used\n\nhint: repair these pictures, or omit them; the lines above say"
        in stderr
    )


def test_prepared_images_of_another_size_are_refused(
    faces: PreparedData, tmp_path: Path, roles: AttributeRoles, make_config: Callable[..., Config]
) -> None:
    card = ModelCard(make_config(), roles, {"size": 16, "channels": 3, "crop": None}, 0, DATA, [])
    save_model(card.build(), card, tmp_path / "small.safetensors")
    code, stdout, stderr = civae(
        f"{faces.path}#test", "--model", tmp_path / "small.safetensors", "--treat", "Young=0"
    )
    assert (code, stdout) == (2, ""), stderr
    assert f"{faces.path}#test: images are 3×32×32, the model takes 3×16×16" in stderr
    assert "prepare them with `--size 16`" in stderr
