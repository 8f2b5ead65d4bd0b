"""Pictures that the predictor is unsure of: what their counterfactuals are the mean of, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.assignments import Intervention
from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.engine.base import Abducted, Array, Predicted
from civae_core.errors import DataError
from civae_core.inference import edit
from civae_core.inference.edit import EditedPicture, edit_pictures
from civae_core.inference.output import EditWriter
from civae_core.inference.pictures import Picture, Pictures
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.calibrated import Calibration
from civae_core.model.stored import load_model

SURE, UNSURE = 9.0, 0.4


class Watched(TorchEngine):
    """The trained model with given predicted logits of Male; counts the images that it decodes."""

    def __init__(self, trained: Path, male: list[float]) -> None:
        super().__init__(load_model(trained))
        self.male, self.decoded = male, 0

    def guess(self, y_BCHW: Array) -> Array | None:
        return np.stack([np.full(len(y_BCHW), SURE), np.array(self.male), np.zeros(len(y_BCHW))], axis=1)

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        assert len(y_BCHW) <= edit.BATCH
        return super().abduct(y_BCHW, x_BX, t_BT)

    def predict(self, abducted: Abducted, t_new_BT: Array, *, noise: float, strength: float) -> Predicted:
        self.decoded += len(t_new_BT)
        return super().predict(abducted, t_new_BT, noise=noise, strength=strength)


@pytest.fixture
def strangers(faces: PreparedData) -> list[Picture]:
    """Three pictures of which nothing is known."""
    found = [p for p in Pictures([f"{faces.path}#test[0:3]"], faces.preprocessing) if isinstance(p, Picture)]
    return [Picture(f"{n}.png", str(n), picture.pixels_CHW) for n, picture in enumerate(found)]


def answers(
    engine: TorchEngine, pictures: list[Picture], do: Intervention, noise: float = 1.0, **stated: float
) -> list[EditedPicture]:
    results = list(edit_pictures(engine, pictures, [do], stated=stated, noise=noise, changes=True))
    assert not [result for result in results if isinstance(result, DataError)]
    return results  # type: ignore[return-value]


def test_a_sure_picture_costs_one_decode_and_an_unsure_one_the_mean_over_both_values(
    trained: Path, strangers: list[Picture]
) -> None:
    sure = Watched(trained, [SURE, -SURE, SURE])
    answers(sure, strangers, {"Young": 0.0})
    assert sure.decoded == 3
    mixed = Watched(trained, [SURE, UNSURE, -SURE])
    found = answers(mixed, strangers, {"Young": 0.0}, noise=0.0)
    assert mixed.decoded == 4
    assert [result.unsure.combinations for result in found] == [1, 2, 1]

    woman, man = (
        answers(mixed, strangers, {"Young": 0.0}, noise=0.0, Male=male, Skin_Tone=result.factual["Skin_Tone"])
        for male, result in ((0.0, found[0]), (1.0, found[0]))
    )
    p = 1 / (1 + np.exp(-UNSURE))

    def change(results: list[EditedPicture], row: int) -> Array:
        found = results[row].edits[0].change_CHW
        assert found is not None
        return found

    np.testing.assert_allclose(change(found, 1), (1 - p) * change(woman, 1) + p * change(man, 1), atol=1e-5)
    assert np.abs(change(woman, 1) - change(man, 1)).max() > 1e-3, "Male matters to the answer"
    np.testing.assert_allclose(change(found, 0), change(man, 0), atol=1e-6)
    np.testing.assert_allclose(change(found, 2), change(woman, 2), atol=1e-6)
    mean_CHW = (1 - p) * woman[1].reconstruction_CHW.astype(float) + p * man[1].reconstruction_CHW
    assert np.abs(found[1].reconstruction_CHW - mean_CHW).max() <= 1.01, "and so is the reconstruction"


def test_what_is_stated_is_not_averaged_over(trained: Path, strangers: list[Picture]) -> None:
    engine = Watched(trained, [UNSURE] * 3)
    found = answers(engine, strangers, {"Young": 0.0}, Male=1.0)
    assert engine.decoded == 3
    assert [(result.factual["Male"], result.unsure.names) for result in found] == [(1.0, ())] * 3
    assert all("Male" not in result.predicted for result in found)


def test_an_unsure_picture_left_as_it_is_comes_back_as_it_was(
    trained: Path, strangers: list[Picture]
) -> None:
    for result in answers(Watched(trained, [UNSURE] * 3), strangers, {"Young": 1.0}):
        assert result.unsure.combinations == 2
        assert np.array_equal(result.edits[0].image_CHW, result.picture.pixels_CHW)


def test_many_combinations_are_decoded_a_batch_at_a_time(
    trained: Path, strangers: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(Watched(trained, [UNSURE] * 3), strangers, {"Young": 0.0})
    monkeypatch.setattr(edit, "BATCH", 3)
    apart = answers(Watched(trained, [UNSURE] * 3), strangers, {"Young": 0.0})
    for one, other in zip(whole, apart, strict=True):
        assert np.abs(one.edits[0].image_CHW.astype(int) - other.edits[0].image_CHW).max() <= 1


def test_records_and_strips_say_what_was_unsure(
    trained: Path, strangers: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Watched(trained, [SURE, UNSURE, SURE])
    monkeypatch.setattr(Watched, "calibration", Calibration({}, {"Skin_Tone": 0.01}, {}, "valid"))
    sure, unsure, _ = answers(engine, strangers, {"Young": 0.0})
    writer = EditWriter(tmp_path, noise=1.0, strength=1.0, strip=False, treatments=())
    (plain,), (mean,) = list(writer.write(sure)), list(writer.write(unsure))
    assert plain["predicted"]["Male"] == pytest.approx(0.9999) and plain["predicted_sd"] == {
        "Skin_Tone": 0.01
    }
    assert not {"unsure", "combinations"} & set(plain)
    assert (mean["unsure"], mean["combinations"]) == (["Male"], 2)
    assert mean["predicted"]["Male"] == pytest.approx(0.5987)
    strips = EditWriter(tmp_path, noise=1.0, strength=1.0, strip=True, treatments=())
    assert strips._conditions(sure) is None
    assert strips._conditions(unsure) == "mean over what Male may be"


def test_a_strip_says_that_a_dose_beyond_training_is_held(
    trained: Path, strangers: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr("civae_core.figures.strips.strip", lambda *_, beyond, **__: said.append(beyond))
    monkeypatch.setattr("civae_core.inference.output.write_png", lambda *_: None)
    beyond, *_ = answers(TorchEngine(load_model(trained)), strangers, {"Young": 2.0})
    for kind in ("binary", "continuous"):
        young = Attribute("Young", kind)
        writer = EditWriter(tmp_path, noise=1.0, strength=1.0, strip=True, treatments=[young])
        assert [record["in_range"] for record in writer.write(beyond)] == [False]
    assert said == ["extrapolation", "as at the nearest dose"]


def run(*arguments: str) -> tuple[list[dict[str, Any]], str]:
    result = CliRunner().invoke(app, ["counterfactual", *arguments])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_the_command_says_what_it_was_unsure_of_and_attr_settles_it(
    trained: Path, strangers: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trained model saw only 512 images, so it is unsure of everything."""
    from civae_core.inference.png import write_image

    files = [tmp_path / f"face-{n}.png" for n in range(4)]
    for file in files:
        write_image(file, strangers[0].pixels_CHW)
    common = [
        "--model",
        str(trained),
        "--treat",
        "Young=0",
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "torch",
    ]
    records, said = run(*map(str, files), *common)
    assert [record["combinations"] for record in records] == [2] * 4
    assert all({"Young", "Male"} == set(record["unsure"]) for record in records)
    told = f"{files[2]}: unsure of Male (1 with probability {records[2]['predicted']['Male']:.2f})"
    assert f"{told}; the answer is the mean over 2 plausible combinations" in said
    assert f"{files[3]}: unsure" not in said and "unsure of 1 more pictures" in said
    assert said.count("state what you know with --attr") == 1

    settled, said = run(str(files[0]), *common, "--attr", "Male=1", "--attr", "Young=1")
    assert "unsure" not in said + json.dumps(settled)
