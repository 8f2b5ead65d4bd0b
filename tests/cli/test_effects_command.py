"""civae effects: sheets, arrays and records of mean effects, and questions that cannot be answered."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.counterfactual import abduct, predict
from civae_core.data import PreparedData
from civae_core.model.stored import load_model

SOURCES = ("posterior", "prior", "truth")


def civae(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["effects", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def records(*arguments: object) -> list[dict[str, Any]]:
    code, stdout, stderr = civae(*arguments)
    assert code == 0, stderr
    return [json.loads(line) for line in stdout.splitlines()]


def arrays_of(record: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(record["arrays"], framework="pt") as file:
        described = json.loads(file.metadata()["civae_effects"])
        return {name: file.get_tensor(name) for name in file.keys()}, described  # noqa: SIM118


def pictures(faces: PreparedData, split: str = "test") -> tuple[Tensor, Tensor, Tensor]:
    """Images, Young and Male [N]."""
    rows_N = faces.rows(split)  # type: ignore[arg-type]
    young_N, male_N = (faces.column(name)[rows_N] for name in ("Young", "Male"))
    return faces.images(rows_N).float() / 255, young_N, male_N


@pytest.fixture(scope="module")
def answered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return records(trained, "--treat", "Young=0", "--out", tmp_path_factory.mktemp("effects") / "new")


def test_a_line_a_group_with_its_numbers(answered: list[dict[str, Any]], faces: PreparedData) -> None:
    _, young_N, male_N = pictures(faces)
    assert [(r["group"], r["n"]) for r in answered] == [
        ("everyone", int(young_N.sum())),
        ("Male = 0", int(((young_N == 1) & (male_N == 0)).sum())),
        ("Male = 1", int(((young_N == 1) & (male_N == 1)).sum())),
    ]
    arrays, described = arrays_of(answered[0])
    assert set(arrays) == {f"{s}.{part}" for s in SOURCES for part in ("before", "after", "effect")}
    assert (described["groups"], described["n"]) == (
        [r["group"] for r in answered], [r["n"] for r in answered]
    )  # fmt: skip
    assert described["assumptions"].startswith(
        "estimated under these assumptions: nothing but Male, Skin_Tone"
    )
    for g, record in enumerate(answered):
        assert record["treat"] == {"Young": 0.0} and record["in_range"] is True
        true = arrays["truth.effect"][g]
        for source in SOURCES:
            effect = arrays[f"{source}.effect"][g]
            assert effect.dtype == torch.float32 and effect.shape == (3, 32, 32)
            torch.testing.assert_close(
                effect, arrays[f"{source}.after"][g] - arrays[f"{source}.before"][g], rtol=0.0, atol=1e-6
            )
            assert record[source]["size"] == pytest.approx(float(effect.square().mean().sqrt()))
            if source != "truth":
                error = float((effect - true).norm() / true.norm())
                assert record[source]["error"]["mean"] == pytest.approx(error, rel=1e-4)
        assert "error" not in record["truth"]


def test_the_means_are_those_of_photographs_counterfactuals_and_truths(
    answered: list[dict[str, Any]], trained: Path, faces: PreparedData
) -> None:
    arrays, _ = arrays_of(answered[0])
    y_NCHW, young_N, male_N = pictures(faces)
    men_N = (young_N == 1) & (male_N == 1)
    model = load_model(trained).model
    x_NX = torch.stack([faces.column(name)[faces.rows("test")] for name in ("Male", "Skin_Tone")], dim=1)
    abduction = abduct(model, y_NCHW[men_N], x_NX[men_N], young_N[men_N][:, None])
    expected = predict(model, abduction, torch.zeros(int(men_N.sum()), 1)).image_BCHW.clamp(0, 1).mean(0)
    torch.testing.assert_close(arrays["posterior.before"][2], y_NCHW[men_N].mean(0), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(arrays["posterior.after"][2], expected, rtol=0.0, atol=1e-5)
    (truth,) = faces.truth
    of_row = {row: place for place, row in enumerate(truth.rows.tolist())}
    places = torch.tensor([of_row[row] for row in faces.rows("test")[men_N].tolist()])
    true = truth.images(places).float().mean(0) / 255
    torch.testing.assert_close(arrays["truth.after"][2], true, rtol=0.0, atol=1e-5)


def test_the_sheet_has_a_row_a_group_and_a_scale(answered: list[dict[str, Any]]) -> None:
    sheet = Image.open(answered[0]["output"])
    assert sheet.size[0] > 8 * 128, "three columns each of posterior and prior, two of the truth"
    assert sheet.size[1] > 3 * 128
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(sheet.width * sheet.height)}  # type: ignore
    assert {(33, 102, 172), (178, 24, 43)} <= colours, "both ends of the scale"


def test_a_flip_is_the_effect_of_the_higher_dose_on_everyone(
    trained: Path, faces: PreparedData, tmp_path: Path
) -> None:
    found = records(
        trained, "--treat", "Young=flip", "--by", "Skin_Tone", "--from", "prior", "--out", tmp_path
    )
    y_NCHW, young_N, _ = pictures(faces)
    assert found[0]["n"] == len(y_NCHW) and "posterior" not in found[0]
    assert [r["group"].split()[:2] for r in found[1:]] == [["Skin_Tone", "≤"], ["Skin_Tone", ">"]]
    assert sum(r["n"] for r in found[1:]) == len(y_NCHW)
    arrays, _ = arrays_of(found[0])
    (truth,) = faces.truth
    of_row = {row: place for place, row in enumerate(truth.rows.tolist())}
    places = torch.tensor([of_row[row] for row in faces.rows("test").tolist()])
    other_NCHW = truth.images(places).float() / 255
    young = torch.where(young_N[:, None, None, None] > 0.5, y_NCHW, other_NCHW).mean(0)
    old = torch.where(young_N[:, None, None, None] > 0.5, other_NCHW, y_NCHW).mean(0)
    torch.testing.assert_close(arrays["truth.before"][0], old, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(arrays["truth.after"][0], young, rtol=0.0, atol=1e-5)


def test_steps_of_a_fine_sweep_have_files_of_their_own(trained: Path, tmp_path: Path) -> None:
    few = ("--by", "Male", "--from", "prior", "--draws", 1, "--limit", 4, "--out", tmp_path)
    found = records(trained, "--treat", "Young=0.1:0.1000003:4", *few)
    for written in ("output", "arrays"):
        assert len({record[written] for record in found}) == 4


def test_images_draws_and_seed_can_be_chosen(trained: Path, faces: PreparedData, tmp_path: Path) -> None:
    def sizes(*arguments: object) -> tuple[int, float]:
        out = tmp_path / "-".join(map(str, arguments)).replace("/", "_")[-40:]
        shared = (trained, "--treat", "Young=flip", "--from", "prior", "--out", out)
        (record,) = records(*shared, "--by", "Male", *arguments)[:1]
        return record["n"], record["prior"]["size"]

    first = sizes("--data", f"{faces.path}#test[3:9]")
    assert first[0] == 6 and first == sizes("--data", f"{faces.path}#test[3:9]")
    assert sizes("--data", f"{faces.path}#test[3:9]", "--seed", 1)[1] != first[1]
    assert sizes("--data", f"{faces.path}#test[3:9]", "--draws", 2)[1] != first[1]
    assert sizes("--data", faces.path, "--limit", 4)[0] == 4


def test_without_truth_there_is_an_answer_but_no_error(
    trained: Path, faces: PreparedData, tmp_path: Path
) -> None:
    code, stdout, stderr = civae(
        trained, "--treat", "Young=0", "--treat", "Young=-1", "--data", f"{faces.path}#train[0:20]", "--json",
        "--from", "posterior", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0 and stdout.count("\n") == 1
    found = json.loads(stdout)
    kept = int((faces.column("Young")[faces.rows("train")[:20]] == 1).sum())
    first, last = (record for record in found["results"] if record["group"] == "everyone")
    assert first["n"] == kept and set(first["posterior"]) == {"size"} and "truth" not in first
    assert set(arrays_of(first)[0]) == {"posterior.before", "posterior.after", "posterior.effect"}
    assert (first["in_range"], last["in_range"], last["n"]) == (True, False, 20)
    assert "warning: --treat Young=-1 (training saw 0 to 1)" in stderr
    assert f"{20 - kept} of 20 images already have this treatment" in stderr
    assert found["assumptions"] in stderr and first["output"] != last["output"]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (
            ["--treat", "Young=0", "--by", "Mael"],
            2,
            "--by: unknown attribute 'Mael' (did you mean Male?)",
            "Skin",
        ),
        (
            ["--treat", "Young=0", "--by", "Young"],
            2,
            "--by Young: is a treatment, not a covariate",
            "Male, Skin_Tone",
        ),
        (["--treat", "Young=0", "--by", "Gray_Hair"], 2, "--by: unknown attribute 'Gray_Hair'", "Male"),
        (["--treat", "Male=0"], 2, "--treat Male=0: unknown attribute 'Male'", "Young"),
        ([], 2, "--treat is missing", "--treat Young=flip"),
        (["--treat", "Young=0", "--data", "{faces}#test[50:60]"], 2, "is outside the split", "30 images"),
        (["--treat", "Young=0", "--data", "{faces}#test[{old}]"], 3, "changes none of the 1 images", ""),
        (["--treat", "Young=0", "--data", "nowhere"], 3, "nowhere", ""),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str],
    code: int,
    message: str,
    hint: str,
    trained: Path,
    faces: PreparedData,
    tmp_path: Path,
) -> None:
    old = int((faces.column("Young")[faces.rows("test")] == 0).nonzero()[0, 0])
    filled = [a.replace("{faces}", str(faces.path)).replace("{old}", str(old)) for a in arguments]
    found, stdout, stderr = civae(trained, *filled, "--out", tmp_path / "out")
    assert (found, stdout) == (code, "") and message in stderr and hint in stderr
    assert not (tmp_path / "out").exists()
