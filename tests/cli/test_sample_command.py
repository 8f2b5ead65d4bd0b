"""civae sample: seeds, stated attributes, grids, and options that cannot be followed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app


def civae(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def results(*arguments: object) -> list[dict[str, Any]]:
    code, stdout, _ = civae(*arguments, "--json")
    assert code == 0 and stdout.count("\n") == 1
    found: list[dict[str, Any]] = json.loads(stdout)["results"]
    return found


def test_paths_are_the_result(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = civae(trained, "--n", 3, "--out", out)
    assert (code, stderr) == (0, "")
    wanted = [out / f"seed-0000{seed}.png" for seed in range(3)] + [out / "samples.png"]
    assert stdout.splitlines() == [str(path) for path in wanted]
    assert [pixels(path).shape for path in wanted[:3]] == [(32, 32, 3)] * 3
    assert pixels(wanted[3]).shape[1] > 2 * 128, "a sheet with all of them"


def test_a_seed_is_the_same_image_whatever_is_drawn_beside_it(trained: Path, tmp_path: Path) -> None:
    many = results(trained, "--n", 4, "--out", tmp_path / "many")
    few = results(trained, "--seeds", "3,0-1", "--n", 3, "--out", tmp_path / "few")
    assert [record.get("seed") for record in few] == [3, 0, 1, None]
    assert few[-1]["seeds"] == [3, 0, 1]
    for record in few[:-1]:
        same = many[record["seed"]]
        assert record["attributes"] == same["attributes"]
        np.testing.assert_array_equal(pixels(record["output"]), pixels(same["output"]))
    assert (pixels(many[0]["output"]) != pixels(many[1]["output"])).any()


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_truncation_draws_people_nearer_to_the_usual_and_is_named(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    model = request.getfixturevalue("exported")
    stated = ("--attr", "Young=1", "--attr", "Male=0", "--attr", "Skin_Tone=0.4", "--engine", engine)
    sheets, spread = {}, {}
    for psi in (0.0, 0.5, 1.0):
        out = tmp_path / str(psi)
        found = results(model, "--n", 6, *stated, "--truncation", psi, "--out", out)
        assert [record["truncation"] for record in found] == [psi] * 7
        sheets[psi] = np.stack([pixels(record["output"]) for record in found[:-1]]).astype(float)
        spread[psi] = sheets[psi].std(axis=0).mean()
    assert spread[0.0] == 0 < spread[0.5] < spread[1.0]
    plain = results(model, "--n", 6, *stated, "--out", tmp_path / "plain")
    assert {record["truncation"] for record in plain} == {1.0}
    np.testing.assert_array_equal([pixels(record["output"]) for record in plain[:-1]], sheets[1.0])
    grid = ("--grid", "Young=0:1:2", "--seeds", 3, "--truncation", 0.5)
    assert results(model, *grid, "--out", tmp_path / "grid")[0]["truncation"] == 0.5


def test_stated_values_hold_for_every_image_and_the_others_are_training_subjects(
    trained: Path, tmp_path: Path
) -> None:
    arguments = ("--attr", "Male=1", "--treat", "Young=0", "--out", tmp_path / "out")
    found = results(trained, "--n", 6, *arguments)
    attributes = [record["attributes"] for record in found[:-1]]
    assert all((a["Young"], a["Male"]) == (0.0, 1.0) for a in attributes)
    assert len({a["Skin_Tone"] for a in attributes}) > 1
    assert found[-1]["stated"] == {"Young": 0.0, "Male": 1.0}


def test_a_grid_is_one_subject_over_values_in_the_order_written(trained: Path, tmp_path: Path) -> None:
    (sheet,) = results(trained, "--grid", "Young=1:0:3,Male=0:1:2", "--out", tmp_path / "a", "--seeds", 5)
    assert sheet["seed"] == 5 and sheet["grid"] == "Young=1:0:3,Male=0:1:2"
    first = pixels(sheet["output"])
    (mirrored,) = results(trained, "--grid", "Young=0:1:3,Male=0:1:2", "--out", tmp_path / "b", "--seeds", 5)
    second = pixels(mirrored["output"])
    assert first.shape == second.shape and (first != second).any()
    (single,) = results(trained, "--grid", "Young=0:1:3", "--out", tmp_path / "c")
    assert pixels(single["output"]).shape[0] < first.shape[0], "one row"
    assert len(results(trained, "--grid", "Young=0:1:3", "--n", 2, "--out", tmp_path / "d")) == 2


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_every_file_says_what_it_is(exported: Path, tmp_path: Path, engine: str) -> None:
    def notes(*arguments: object) -> list[str]:
        found = results(exported, *arguments, "--engine", engine, "--out", tmp_path / "out")
        return [Image.open(record["output"]).info["Description"] for record in found]

    told = "Drawn by civae from the prior: {}; not a photograph"
    stated = ("--treat", "Young=0", "--attr", "Male=1", "--attr", "Skin_Tone=0.4")
    values = "Young=0, Male=1, Skin_Tone=0.4, within what training saw"
    assert notes("--seeds", 3, *stated) == [
        told.format(f"seed 3, {values}"),
        told.format(f"a sheet of 1, {values}"),
    ]
    grid = ("--seeds", 3, "--grid", "Young=0:3:2", "--truncation", 0.5)
    assert notes(*grid) == [told.format("seed 3, Young=0:3:2, truncation=0.5, Young=3 (training saw 0 to 1)")]


def test_values_beyond_training_are_warned_of(trained: Path, tmp_path: Path) -> None:
    arguments = ("--n", 1, "--out", tmp_path / "out", "-q")
    code, _, stderr = civae(trained, "--treat", "Young=3", *arguments)
    assert (code, stderr) == (0, "warning: Young=3 (training saw 0 to 1); interpret with care\n")
    code, _, stderr = civae(trained, "--grid", "Young=-1:2:4", *arguments)
    assert code == 0
    assert [line.split()[2] for line in stderr.splitlines()] == ["Young=-1", "Young=2"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--attr", "Mail=1"], "--attr Mail=1: unknown attribute 'Mail' (did you mean Male?)", "Skin_Tone"),
        (["--treat", "Male=1"], "--treat Male=1: unknown attribute 'Male'", "known attributes: Young"),
        (["--treat", "Young=0:1:3"], "--treat Young=0:1:3: needs a single number", "Young=1"),
        (["--treat", "Young=0", "--attr", "Young=1"], "--attr Young: is already set by --treat", "once"),
        (["--attr", "Male=1e39"], "--attr Male=1e39: '1e39' is beyond 3.4e+38, the largest number", ""),
        (["--attr", "Skin_Tone=1e38"], "the model gives no finite image under the stated values", "warnings"),
        (
            ["--grid", "Skin_Tone=0:1e38:2"],
            "the model gives no finite image under the stated values",
            "warnings",
        ),
        (["--seeds", "7-3"], "--seeds 7-3: '7-3' is an empty or too long range", ""),
        (["--seeds", "one"], "--seeds one: 'one' is not a seed", "0-7,12"),
        (["--seeds", "0-7", "--n", "3"], "--n 3: --seeds 0-7 names 8, not 3", "only one of the two"),
        (["--grid", "Young=0:1:3,Male=0:1:2,Skin_Tone=0:1:2"], "needs one or two attributes", "Young=0:1:5"),
        (
            ["--grid", "Yuong=0:1:3"],
            "--grid Yuong=0:1:3: unknown attribute 'Yuong' (did you mean Young?)",
            "",
        ),
        (["--grid", "Young=flip"], "--grid Young=flip: needs one or two attributes with numbers", "0:1:5"),
        (["--grid", "Young=0:1:2", "--treat", "Young=1"], "Young is also set to one value", "once"),
        (["--grid", ""], "needs the form NAME=VALUE", "Young=0"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_written(
    trained: Path, tmp_path: Path, arguments: list[str], message: str, hint: str
) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = civae(trained, *arguments, "--out", out)
    assert (code, stdout) == (2, "")
    assert "error: " in stderr and message in stderr and hint in stderr.partition("hint: ")[2]
    assert not out.exists()
