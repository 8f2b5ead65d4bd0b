"""The evaluation as a whole: its schema, what perfect and copied answers score, and what it must not do."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.errors import DataError, UsageError
from civae_core.evaluation import average_effects, calibration, cycles, latents, samples, scores
from civae_core.evaluation import evaluate as module
from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.evaluate import default_data, evaluate
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.methods import TrainedModel
from civae_core.evaluation.metrics import psnr
from civae_core.evaluation.question import ask, find_rows, values_to_ask
from civae_core.evaluation.report import render_evaluation
from civae_core.evaluation.sheets import GRID_ROWS
from civae_core.evaluation.table import evaluation_tables
from civae_core.model.stored import StoredModel
from civae_core.yardstick import Yardstick, train_yardstick

MakeStored = Callable[..., StoredModel]
COUNTERFACTUAL = {
    "relative_effect_error", "relative_effect_error_mean_image", "ate_error", "mse_counterfactual",
    "psnr_counterfactual", "ssim_counterfactual", "ms_ssim_counterfactual", "mse_off_effect", "pehe",
    "ate_error_interval",
}  # fmt: skip
MODEL = {
    "samples", "psnr_reconstruction", "ssim_reconstruction", "ms_ssim_reconstruction", "bits_per_dim", "composition",
    "reversibility", "ate_error_prior",
}  # fmt: skip


class Oracle(TrainedModel):
    """Recognises each image and returns its stored true counterfactual."""

    known: dict[bytes, Tensor]

    def answer(self, asked: Asked) -> Answer:
        truth_BCHW = torch.stack([self.known.get(image_key(y_CHW), y_CHW) for y_CHW in asked.y_BCHW])
        return Answer(truth_BCHW, truth_BCHW, asked.y_BCHW)


def image_key(y_CHW: Tensor) -> bytes:
    return (y_CHW * 255).round().to(torch.uint8).numpy().tobytes()


@pytest.fixture
def oracle(faces: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model answers with the truth."""
    (truth,) = faces.truth
    images = truth.images(torch.arange(len(truth))).float() / 255
    factual = faces.images(truth.rows).float() / 255
    known = {image_key(y_CHW): true_CHW for y_CHW, true_CHW in zip(factual, images, strict=True)}
    monkeypatch.setattr(Oracle, "known", known, raising=False)
    monkeypatch.setattr(module, "name_methods", lambda models: [Oracle("ours", models[0])])


@pytest.fixture(scope="module")
def scorer(faces: PreparedData) -> Yardstick:
    """Hardly trained: it judges, but not well."""
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"], ["Gray_Hair"])
    return train_yardstick(faces, roles, images=32, device=torch.device("cpu"))


@pytest.fixture
def seen(faces: PreparedData, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Number of images in each read of the data."""
    counts: list[int] = []
    whole = PreparedData.images

    def counted(self: PreparedData, rows: Tensor) -> Tensor:
        counts.append(len(rows))
        return whole(self, rows)

    monkeypatch.setattr(PreparedData, "images", counted)
    yield counts


def numbers_of(entry: object) -> Iterator[float]:
    if isinstance(entry, dict):
        for value in entry.values():
            yield from numbers_of(value)
    elif not isinstance(entry, bool):
        assert isinstance(entry, int | float)  # counts are whole
        yield entry


def score(models: list[StoredModel], data: PreparedData, **options: Any) -> dict[str, Any]:
    """The numbers alone: drawing takes longer than all the rest."""
    return evaluate(models, data, pictures=False, **options).numbers


@pytest.mark.usefixtures("oracle")
def test_the_truth_scores_0_and_the_copy_exactly_1(faces: PreparedData, make_stored: MakeStored) -> None:
    methods = score([make_stored()], faces)["methods"]
    ours, copied = methods["ours"], methods["copy"]
    assert ours["relative_effect_error"] == {"mean": 0.0, "lo": 0.0, "hi": 0.0}
    assert (ours["ate_error"], ours["pehe"]["mean"], ours["mse_off_effect"]["mean"]) == (0.0, 0.0, 0.0)
    assert ours["ssim_counterfactual"]["mean"] == pytest.approx(1.0)
    assert copied["relative_effect_error"] == {"mean": 1.0, "lo": 1.0, "hi": 1.0}
    assert copied["relative_effect_error_mean_image"] == {"mean": 1.0, "lo": 1.0, "hi": 1.0}
    assert copied["ate_error"] == pytest.approx(1.0, abs=1e-12)
    assert copied["mse_off_effect"]["mean"] == 0.0


def test_the_schema(faces: PreparedData, make_stored: MakeStored) -> None:
    found = score([make_stored(), make_stored("cvae"), make_stored("original")], faces, seed=4)
    numbers: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    assert (numbers["schema"], numbers["data"], numbers["split"]) == (1, "synthetic:faces", "test")
    assert (numbers["n"], numbers["noise"], numbers["seed"]) == (len(faces.rows("test")), 1.0, 4)
    assert numbers["fingerprint"] == faces.fingerprint
    assert (numbers["treatment"], numbers["covariates"], numbers["do"]) == (
        ["Young"], ["Male"], {"Young": "flip"}
    )  # fmt: skip
    assert numbers["images_seen"] == {"ours": 100, "cvae": 100, "original": 100}
    methods = numbers["methods"]
    assert list(methods) == ["copy", "ours", "cvae", "original"]
    assert set(methods["copy"]) == COUNTERFACTUAL
    for name in ("ours", "cvae", "original"):
        assert set(methods[name]) == COUNTERFACTUAL | MODEL
        for key, entry in methods[name].items():
            if key not in ("ate_error", "composition", "reversibility", "samples"):
                of_means = ("ate_error_prior", "ate_error_interval")
                extra = {"chance", "corrected"} if key in of_means else set()
                assert set(entry) == {"mean", "lo", "hi"} | extra
                assert entry["lo"] <= entry["mean"] <= entry["hi"]
        assert all(number == number for number in numbers_of(methods[name]))
    assert set(found["overlap"]) == {"Young"} and found["overlap"]["Young"]["verdict"]
    assert found["overlap"]["Young"]["n"] == len(faces.rows("train")), (
        "whose treatment the model learned from"
    )


def test_pictures_show_truth_and_every_method(faces: PreparedData, make_stored: MakeStored) -> None:
    models = [make_stored(), make_stored("cvae"), make_stored("original")]
    own, change = evaluate(models[:1], faces).pictures[:2]
    same, all_methods, changes = evaluate(models, faces).pictures[:3]
    assert "do(Young=flip)" in own.caption and "τ = 1" in own.caption
    assert own.image.tobytes() == same.image.tobytes()
    assert "where, and how" in change.caption and changes.image.width < all_methods.image.width
    # Original, reconstruction, counterfactual, truth; then original, three methods, truth.
    assert all_methods.image.width - own.image.width == pytest.approx(128, abs=20)


def test_without_a_known_truth_counterfactual_keys_are_absent(
    faces: PreparedData, make_stored: MakeStored
) -> None:
    for numbers in (
        score([make_stored()], faces, split="train", limit=20),
        score([make_stored(treatments=("Male",), covariates=())], faces),
    ):
        assert set(numbers["methods"]) == {"ours"}, "nothing to copy for"
        assert set(numbers["methods"]["ours"]) == MODEL - {"ate_error_prior"}
    assert numbers["do"] == {"Male": "flip"}


def test_a_continuous_treatment_is_asked_about_near_both_of_its_ends(
    faces: PreparedData, make_stored: MakeStored, scorer: Yardstick
) -> None:
    stored = make_stored(treatments=("Skin_Tone",))
    found = evaluate([stored], faces, instruments=Instruments(scorer))
    high, low = values_to_ask(stored.card.roles.treatments[0], faces)
    (other,) = found.numbers["other_interventions"]
    assert (found.numbers["do"], other["do"]) == ({"Skin_Tone": high}, {"Skin_Tone": low})
    for numbers in (found.numbers, other):
        assert "mae" in numbers["methods"]["ours"]["effectiveness"]["Skin_Tone"]
    first, second = evaluation_tables(found.numbers)
    assert f"do(Skin_Tone={high:g})" in str(first.title) and f"do(Skin_Tone={low:g})" in str(second.title)
    assert len({picture.name for picture in found.pictures}) == len(found.pictures)
    assert f"The same for do(Skin_Tone={low:g})" in render_evaluation(found.numbers, [])


def test_without_a_known_truth_every_treatment_is_judged(
    faces: PreparedData, make_stored: MakeStored, scorer: Yardstick
) -> None:
    stored = make_stored(treatments=("Young", "Male"), covariates=())
    found = score([stored, make_stored("cvae", treatments=("Young", "Male"), covariates=())], faces,
                  split="train", limit=20, instruments=Instruments(scorer))  # fmt: skip
    (other,) = found["other_interventions"]
    assert (found["do"], other["do"], other["n"]) == ({"Young": "flip"}, {"Male": "flip"}, 20)
    for methods, treatment in ((found["methods"], "Young"), (other["methods"], "Male")):
        assert list(methods) == ["copy", "ours", "cvae"]
        for entry in methods.values():
            assert set(entry["effectiveness"]) == {treatment} and treatment not in entry["leak"]


def test_treatments_beside_the_one_asked_about_stay_factual(
    faces: PreparedData, make_stored: MakeStored, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Tensor, Tensor]] = []
    answer = TrainedModel.answer

    def noted(self: TrainedModel, batch: Asked) -> Answer:
        asked.append((batch.t_BT, batch.t_new_BT))
        return answer(self, batch)

    monkeypatch.setattr(TrainedModel, "answer", noted)
    found = score([make_stored(treatments=("Male", "Young"), covariates=())], faces)
    assert found["do"] == {"Young": "flip"}
    assert [other["do"] for other in found["other_interventions"]] == [{"Male": "flip"}], "without a truth"
    flipped = [(new - t).abs() for t, new in asked if not torch.equal(t, new)]
    assert all(torch.equal(changed_BT, changed_BT[:1].expand_as(changed_BT)) for changed_BT in flipped)
    assert [changed_BT[0].tolist() for changed_BT in flipped] == [[0, 1], [1, 0]]


def test_every_known_intervention_is_scored_the_first_where_it_always_was(
    faces: PreparedData, make_stored: MakeStored, tmp_path: Path
) -> None:
    truths = [TruthSpec(f"{name}=flip", {name: "flip"}) for name in ("Young", "Male", "Smiling")]
    source = faces_source(count=40, seed=1, overlap=0.5, truths=truths, size=32, channels=3)
    data = prepare(source, tmp_path / "data", workers=1, max_bad=MaxBad.parse("0")).data
    found = evaluate([make_stored(treatments=("Male", "Young"), covariates=())], data)
    assert found.numbers["do"] == {"Young": "flip"}
    # Each is asked about with the other as it is: what tells them apart is the other.
    assert found.numbers["overlap"]["Young"]["covariates"] == ["Male"]
    assert found.numbers["overlap"]["Male"]["covariates"] == ["Young"]
    (other,) = found.numbers["other_interventions"]
    assert (other["do"], other["n"]) == ({"Male": "flip"}, 4), "Smiling is no treatment"
    assert set(other["methods"]) == {"copy", "ours"}
    assert set(other["methods"]["ours"]) == COUNTERFACTUAL
    assert other["methods"]["copy"]["relative_effect_error"]["mean"] == 1.0
    assert {"sheet_Young-flip", "changes_Young-flip", "sheet_Male-flip", "changes_Male-flip"} <= {
        picture.name for picture in found.pictures
    }
    first, second = evaluation_tables(found.numbers)
    assert "do(Young=flip)" in str(first.title) and "do(Male=flip)" in str(second.title)
    assert "The same for do(Male=flip), 4 images" in render_evaluation(found.numbers, [])


def test_only_who_is_changed_is_scored_and_all_are_what_answers_are_compared_with(
    made_old: PreparedData, make_stored: MakeStored, scorer: Yardstick
) -> None:
    stored = make_stored()
    chosen = labelled_rows(made_old, stored.card.roles, "test")
    young = int(chosen.t_NT.sum())
    instruments = Instruments(scorer, lpips=lambda a_BCHW, b_BCHW: (a_BCHW - b_BCHW).abs().flatten(1).mean(1))
    found = score([stored], made_old, instruments=instruments)
    ours = found["methods"]["ours"]
    assert "lpips_counterfactual" in ours and "lpips_10" in ours["composition"]["noise_0"]
    assert found["do"] == {"Young": 0.0} and found["n"] == young < len(chosen)
    asked = ask(made_old, stored.card.roles, chosen)[0].batch(made_old, slice(None), torch.device("cpu"))
    assert asked.truth_BCHW is not None and int(asked.t_BT.sum()) == young
    answer_BCHW = TrainedModel("ours", stored).answer(asked).with_noise_BCHW.clamp(0, 1)
    expected = float(psnr(answer_BCHW, asked.truth_BCHW).mean())
    assert ours["psnr_counterfactual"]["mean"] == pytest.approx(expected, rel=1e-5)
    assert ours["minimality"]["cld"]["mean"] > 0, "of the old there are photographs to compare with"
    assert found["predictor"]["ours"]["Young"]["n"] == ours["samples"]["n"] == len(chosen)
    assert score([stored], made_old, limit=4)["n"] == 4


def test_rows_are_found_in_any_order() -> None:
    rows_M = torch.tensor([7, 3, 9, 4])
    assert find_rows(rows_M, torch.tensor([9, 5, 3, 100, 7, -2])).tolist() == [2, -1, 1, -1, 0, -1]
    assert find_rows(rows_M[:0], torch.tensor([1, 2])).tolist() == [-1, -1]


@pytest.mark.parametrize("absent", [("train",), ("train", "valid")])
def test_data_without_a_training_split_says_nothing_of_overlap(
    absent: tuple[str, ...],
    faces: PreparedData,
    make_stored: MakeStored,
    scorer: Yardstick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = PreparedData.rows
    monkeypatch.setattr(
        PreparedData, "rows", lambda self, split: whole(self, split)[: 0 if split in absent else None]
    )
    found = score([make_stored()], faces, instruments=Instruments(scorer))
    assert found["overlap"] == {} and "effectiveness" in found["methods"]["ours"]
    tried = [] if "valid" in absent else ["ours"]
    assert list(found["scorer"]["reconstructions"]) == tried, "on held-out images only"
    assert found["scorer"]["photos"] == scorer.card.photos
    render_evaluation(found, [])


@pytest.mark.parametrize("name", ["Male", "Young"])
def test_a_training_split_that_lacks_a_label_everywhere_says_nothing_of_overlap(
    name: str, faces: PreparedData, make_stored: MakeStored
) -> None:
    data = PreparedData.open(faces.path)
    train, column = data.rows("train"), [attribute.name for attribute in data.attributes].index(name)
    data.table_NA[train, column] = torch.nan
    found = evaluate([make_stored()], data).numbers
    assert found["overlap"] == {}
    assert found["methods"] == score([make_stored()], faces)["methods"], "the test split has all its labels"
    render_evaluation(found, [])
    data.table_NA[train[:7], column] = faces.table_NA[train[:7], column]
    assert score([make_stored()], data)["overlap"]["Young"]["n"] == 7


def test_limit_spreads_over_the_split(
    faces: PreparedData, make_stored: MakeStored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_stored()
    assert score([stored], faces, limit=1)["n"] == 1
    whole = score([stored], faces)
    assert score([stored], faces, limit=10_000) == whole
    asked: list[int] = []
    answer = TrainedModel.answer

    def noted(self: TrainedModel, batch: Asked) -> Answer:
        asked.extend(batch.rows_B.tolist())
        return answer(self, batch)

    monkeypatch.setattr(TrainedModel, "answer", noted)
    assert score([stored], faces, limit=4)["n"] == 4
    assert len(faces.rows("test")) == 30
    assert asked == faces.rows("test")[torch.tensor([0, 10, 19, 29])].tolist()


def test_images_pass_through_in_batches(
    faces: PreparedData, make_stored: MakeStored, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_stored()
    whole = score([stored], faces)["methods"]["ours"]
    seen.clear()
    for streaming in (scores, cycles, average_effects, latents, calibration, samples):
        monkeypatch.setattr(streaming, "BATCH", 8)
    batched = evaluate([stored], faces).numbers["methods"]["ours"]  # with its pictures, which read images too
    assert max(seen) == 8 == GRID_ROWS
    del whole["bits_per_dim"], batched["bits_per_dim"]  # whose posterior draws are numbered by batch
    for key in whole:
        assert list(numbers_of({"": batched[key]})) == pytest.approx(
            list(numbers_of({"": whole[key]})), rel=1e-3, abs=1e-7
        )


def test_the_same_seed_gives_the_same_numbers(faces: PreparedData, make_stored: MakeStored) -> None:
    stored = make_stored()
    first = score([stored], faces, seed=1)
    assert score([stored], faces, seed=1) == first
    ours, other = first["methods"]["ours"], score([stored], faces, seed=2)["methods"]["ours"]
    for name, is_drawn in (
        ("relative_effect_error", False),
        ("bits_per_dim", True),
        ("ate_error_prior", True),
    ):
        assert (other[name]["mean"] != ours[name]["mean"]) == is_drawn, (
            "draws from posterior and prior differ"
        )
        assert other[name]["lo"] != ours[name]["lo"], "and so does the resampling"


def test_data_that_does_not_fit_the_model_is_refused(faces: PreparedData, make_stored: MakeStored) -> None:
    with pytest.raises(UsageError, match=r"images are 3×32×32, the model takes 3×16×16") as caught:
        evaluate([make_stored(size=16)], faces)
    assert str(faces.path) in caught.value.message
    with pytest.raises(DataError, match=r"has no column Hat") as missing:
        evaluate([make_stored(covariates=("Male", "Hat"))], faces)
    assert str(faces.path) in missing.value.message


@pytest.mark.parametrize("name", ["Young", "Male"])
def test_no_model_is_given_labels_of_another_kind_than_in_its_training(
    name: str, faces: PreparedData, make_stored: MakeStored
) -> None:
    fits, data = make_stored(), PreparedData.open(faces.path)
    data.attributes = tuple(replace(a, kind="continuous") if a.name == name else a for a in faces.attributes)
    other = make_stored("cvae")
    roles = AttributeRoles.assign(data.attributes, ["Young"], ["Male"])
    counted = StoredModel(other.model, replace(other.card, roles=roles), other.path)
    for models, wrong, has in (([fits], data, "continuous"), ([fits, counted], faces, "binary")):
        with pytest.raises(DataError) as caught:
            evaluate(models, wrong)
        assert f"--data {faces.path}: {name} is {has} there, but the model" in caught.value.message


def test_the_default_data_is_what_the_model_was_trained_on(
    faces: PreparedData, make_stored: MakeStored, caplog: pytest.LogCaptureFixture
) -> None:
    stored = make_stored()
    assert default_data(stored).fingerprint == faces.fingerprint and not caplog.records
    stored.card.data["fingerprint"] = "00"
    default_data(stored)
    assert "has changed since the model was trained on it" in caplog.text
    stored.card.data["path"] = str(faces.path / "gone")
    with pytest.raises(DataError, match=r"gone.*the data that run.* was trained on") as caught:
        default_data(stored)
    assert caught.value.hint == "name prepared data with --data"
