"""Counterfactuals of many pictures: order, errors, flips, ranges, and what a null intervention returns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.assignments import Intervention
from civae_core.attributes import Attribute, AttributeRoles
from civae_core.counterfactual import act
from civae_core.data import PreparedData
from civae_core.errors import DataError, UsageError
from civae_core.inference import edit
from civae_core.inference.edit import EditedPicture, abduct_pictures, edit_abducted, edit_pictures
from civae_core.inference.pictures import Picture, Pictures
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.stored import load_model

ROLES = AttributeRoles(
    treatments=(Attribute("Young", "binary"), Attribute("Dose", "continuous", 0.0, 10.0, 5.0, 2.0)),
    covariates=(),
)


@pytest.fixture(scope="module")
def engine(trained: Path) -> TorchEngine:
    return TorchEngine(load_model(trained))


@pytest.fixture
def pictures(faces: PreparedData) -> list[Picture]:
    found = Pictures([f"{faces.path}#test[0:5]"], faces.preprocessing)
    return [picture for picture in found if isinstance(picture, Picture)]


def edited(results: Iterator[EditedPicture | DataError]) -> list[EditedPicture]:
    return [result for result in results if isinstance(result, EditedPicture)]


def test_setting_what_is_already_so_returns_the_same_pixels(
    engine: TorchEngine, pictures: list[Picture]
) -> None:
    for value in (0.0, 1.0):
        for result in edited(edit_pictures(engine, pictures, [{"Young": value}], stated={})):
            (found,) = result.edits
            same = np.array_equal(found.image_CHW, result.picture.pixels_CHW)
            assert same == (result.factual["Young"] == value), "and the other value changes some"


def test_without_pixel_noise_a_null_intervention_is_the_reconstruction(
    engine: TorchEngine, pictures: list[Picture]
) -> None:
    for result in edited(edit_pictures(engine, pictures, [{}], stated={}, noise=0.0)):
        assert np.array_equal(result.edits[0].image_CHW, result.reconstruction_CHW)
        assert not np.array_equal(result.reconstruction_CHW, result.picture.pixels_CHW)


def test_a_flip_is_the_other_value_of_each_picture(engine: TorchEngine, pictures: list[Picture]) -> None:
    flips = edited(edit_pictures(engine, pictures, [{"Young": "flip"}], stated={}))
    assert {result.factual["Young"] for result in flips} == {0.0, 1.0}
    for result in flips:
        assert result.edits[0].treat == {"Young": 1 - result.factual["Young"]}


def test_a_value_outside_the_training_range_is_flagged(engine: TorchEngine, pictures: list[Picture]) -> None:
    sweep = [{"Young": value} for value in (-0.5, 0.0, 0.25, 1.0, 1.5)]
    (result,) = edited(edit_pictures(engine, pictures[:1], sweep, stated={}))
    assert [found.in_range for found in result.edits] == [False, True, True, True, False]
    assert result.edits[0].beyond == ("Young",)
    assert [found.treat["Young"] for found in result.edits] == [-0.5, 0.0, 0.25, 1.0, 1.5]


def test_results_do_not_depend_on_the_batch(
    engine: TorchEngine, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = edited(edit_pictures(engine, pictures, [{"Young": "flip"}], stated={}))
    monkeypatch.setattr(edit, "BATCH", 2)
    apart = edited(edit_pictures(engine, pictures, [{"Young": "flip"}], stated={}))
    assert [r.picture.name for r in apart] == [r.picture.name for r in together] == [p.name for p in pictures]
    for one, other in zip(together, apart, strict=True):
        difference = one.edits[0].image_CHW.astype(int) - other.edits[0].image_CHW
        assert np.abs(difference).max() <= 1, "rounding only"


def test_a_long_sweep_takes_fewer_pictures_at_a_time(
    engine: TorchEngine, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "MOST_BYTES", 4 * pictures[0].pixels_CHW.size)

    def taken_before_the_first_result(interventions: int) -> int:
        rest = iter(pictures)
        next(edit_pictures(engine, rest, [{"Young": 0.0}] * interventions, stated={}))
        return len(pictures) - len(list(rest))

    assert [taken_before_the_first_result(n) for n in (0, 1, 2, 3, 40)] == [4, 4, 2, 1, 1]


@pytest.mark.parametrize(("treat", "stated"), [({"Young": 1e30}, {}), ({"Young": 1.0}, {"Skin_Tone": -1e38})])
def test_values_under_which_no_picture_comes_out_are_refused_not_shown_in_black(
    engine: TorchEngine, pictures: list[Picture], treat: Intervention, stated: dict[str, float]
) -> None:
    results = edit_pictures(engine, pictures, [{"Young": 0.5}, treat], stated=stated)
    with pytest.raises(UsageError) as caught:
        list(results)
    assert caught.value.message.startswith(
        f"{pictures[0].name}: the model gives no finite image under Young="
    )
    assert ("Young=1e+30" in caught.value.message) == (treat["Young"] == 1e30)
    assert ("Skin_Tone=-1e+38" in caught.value.message) == bool(stated)


def test_errors_keep_their_place_among_the_pictures(
    engine: TorchEngine, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "BATCH", 2)
    first, second, third = (DataError(f"{name}: not an image") for name in "abc")
    entries = [first, second, pictures[0], third, pictures[1]]
    results = list(edit_pictures(engine, entries, [{"Young": 0.0}], stated={}))
    assert [r.picture if isinstance(r, EditedPicture) else r for r in results] == entries


def test_stated_values_reach_the_model(engine: TorchEngine, pictures: list[Picture]) -> None:
    images = []
    for male in (0.0, 1.0):
        (result,) = edited(
            edit_pictures(engine, pictures[:1], [{"Young": -3.0}], stated={"Male": male, "Young": 1.0})
        )
        assert (result.factual["Male"], result.factual["Young"]) == (male, 1.0)
        assert result.predicted == {}
        images.append(result.edits[0].image_CHW)
    assert not np.array_equal(*images)


def test_strength_scales_the_effect(engine: TorchEngine, pictures: list[Picture]) -> None:
    def change(strength: float) -> np.ndarray:
        (result,) = edited(
            edit_pictures(engine, pictures[:1], [{"Young": "flip"}], stated={}, strength=strength)
        )
        return result.edits[0].image_CHW.astype(float) - result.picture.pixels_CHW

    assert (change(0.0) == 0).all()
    assert np.linalg.norm(change(2.0)) > 1.5 * np.linalg.norm(change(1.0))


@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_changes_are_what_the_images_show_before_rounding(
    engine: TorchEngine, pictures: list[Picture], noise: float
) -> None:
    sweep: list[Intervention] = [{"Young": 0.0}, {"Young": 1.0}]
    for result in edited(edit_pictures(engine, pictures, sweep, stated={}, noise=noise, changes=True)):
        for found in result.edits:
            assert found.change_CHW is not None and found.change_CHW.dtype == np.float32
            shown_CHW = result.picture.pixels_CHW + 255 * found.change_CHW
            assert np.abs(shown_CHW.clip(0, 255) - found.image_CHW).max() <= 0.51
            moved = np.abs(found.change_CHW).max() > 1e-5
            assert noise < 1 or moved == (found.treat["Young"] != result.factual["Young"])


def test_asking_again_only_predicts(
    engine: TorchEngine, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = abduct_pictures(engine, pictures, {"Male": 1.0})
    once = edited(edit_pictures(engine, pictures, [{"Young": 0.0}], stated={"Male": 1.0}, noise=0.5))
    monkeypatch.setattr(engine, "abduct", None)
    monkeypatch.setattr(engine, "guess", None)
    again = edited(iter(edit_abducted(kept, [{"Young": 0.0}], noise=0.5)))
    for first, second in zip(once, again, strict=True):
        assert np.array_equal(first.edits[0].image_CHW, second.edits[0].image_CHW)
        assert first.factual == second.factual and second.factual["Male"] == 1.0


def test_the_effect_is_that_of_the_decoder_whatever_the_noise(
    engine: TorchEngine, pictures: list[Picture]
) -> None:
    kept = abduct_pictures(engine, pictures, {})
    (plain,), (noisy,) = (
        [
            found.edits[0]
            for found in edited(iter(edit_abducted(kept, [{"Young": 1.5}], noise=n, changes=True)))[:1]
        ]
        for n in (0.0, 1.0)
    )
    assert plain.effect_CHW is not None and plain.change_CHW is not None and noisy.effect_CHW is not None
    mean_CHW = kept.y_BCHW[0] + plain.change_CHW
    assert np.allclose(plain.effect_CHW, mean_CHW - kept.reconstruction_BCHW[0], atol=1e-6)
    assert np.array_equal(noisy.effect_CHW, plain.effect_CHW) and np.abs(plain.effect_CHW).max() > 1e-3


def test_changes_come_only_where_they_are_asked_for(engine: TorchEngine, pictures: list[Picture]) -> None:
    (result,) = edited(edit_pictures(engine, pictures[:1], [{"Young": 0.0}], stated={}))
    assert result.edits[0].change_CHW is None and result.edits[0].effect_CHW is None


def test_treatments_that_are_not_named_keep_their_value() -> None:
    t_BT = torch.tensor([[1.0, 3.0], [0.0, 7.5]])
    assert act(t_BT, {"Dose": 12.0}, ROLES.treatments).tolist() == [[1.0, 12.0], [0.0, 12.0]]
    assert act(t_BT, {"Young": "flip"}, ROLES.treatments).tolist() == [[0.0, 3.0], [1.0, 7.5]]
    assert act(t_BT, {}, ROLES.treatments).tolist() == t_BT.tolist()
    assert t_BT.tolist() == [[1.0, 3.0], [0.0, 7.5]], "the factual values stay"
