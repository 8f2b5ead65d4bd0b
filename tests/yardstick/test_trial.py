"""Which images a scorer is tried on, and what it is shown of them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from civae_core.counterfactual import abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.errors import UsageError
from civae_core.model.stored import load_model
from civae_core.yardstick import Yardstick, score_quality, trial
from civae_core.yardstick.degrade import blurred
from civae_core.yardstick.trial import quality_on_photos, quality_on_reconstructions, split_rows


def test_the_test_split_is_never_touched(faces: PreparedData) -> None:
    train_N, tested_N = split_rows(faces)
    assert torch.equal(train_N, faces.rows("train")) and torch.equal(tested_N, faces.rows("valid"))


def test_without_a_valid_split_some_training_images_are_set_aside(
    pictures: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = pictures(count=200)
    data.splits["valid"] = torch.zeros(0, dtype=torch.int64)
    with caplog.at_level(logging.WARNING, "civae_core"):
        train_N, tested_N = split_rows(data)
    assert len(tested_N) == 14 and "no valid split" in caplog.text
    assert sorted([*train_N.tolist(), *tested_N.tolist()]) == data.rows("train").tolist()
    data.splits["valid"], data.splits["train"] = data.splits["train"], data.splits["valid"]
    again_N, _ = split_rows(data)
    assert torch.equal(again_N, train_N)


def test_a_large_split_is_thinned_out(pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MOST_TESTED", 20)
    tested_N = split_rows(pictures(count=200))[1]
    assert len(tested_N) == 20 and tested_N[0] == 140 and tested_N[-1] == 199


def test_photos_are_read_sharp_or_blurred(scorer: Yardstick, faces: PreparedData) -> None:
    rows_N = faces.rows("test")
    y_NCHW = faces.images(rows_N).float() / 255
    labels_NA = torch.stack([faces.column(a.name)[rows_N] for a in scorer.attributes], dim=1)
    arms_N = faces.column("Young")[rows_N]
    for blur, images_NCHW in ((0.0, y_NCHW), (0.05, blurred(y_NCHW, 0.05 * 32))):
        outputs_NA = scorer.read(images_NCHW).outputs_BA
        expected = score_quality(outputs_NA, labels_NA, scorer.attributes, arms_N)
        found = quality_on_photos(scorer, faces, rows_N, blur=blur)
        assert found.keys() == expected.keys()
        for name, numbers in expected.items():
            assert found[name] == pytest.approx(numbers, rel=1e-4)
    assert quality_on_photos(scorer, faces, rows_N[:0]) == {}


def test_reconstructions_are_the_models_own_of_held_out_images(
    scorer: Yardstick, faces: PreparedData, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = load_model(trained)
    found = quality_on_reconstructions(scorer, stored, faces)
    chosen = labelled_rows(faces, stored.card.roles, "valid")
    shown_NCHW = abduct(stored.model, *chosen.read(faces, torch.device("cpu"))).reconstruction.mean_BCHW
    labels_NA = torch.stack([faces.column(a.name)[chosen.rows_N] for a in scorer.attributes], dim=1)
    outputs_NA = scorer.read(shown_NCHW).outputs_BA
    expected = score_quality(outputs_NA, labels_NA, scorer.attributes, faces.column("Young")[chosen.rows_N])
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, rel=1e-4)
    assert found["Skin_Tone"] != scorer.card.photos["Skin_Tone"]
    monkeypatch.setattr(trial, "MOST_TESTED", 5)
    assert quality_on_reconstructions(scorer, stored, faces)["Young"]["n"] == 5


@pytest.mark.parametrize("name", ["Young", "Male"])
def test_without_a_labelled_held_out_image_there_is_nothing_to_try_it_on(
    name: str, scorer: Yardstick, faces: PreparedData, trained: Path
) -> None:
    data = PreparedData.open(faces.path)
    column = [attribute.name for attribute in data.attributes].index(name)
    table_NA = data.table_NA.clone()
    table_NA[data.rows("valid")[1:], column] = torch.nan
    data.table_NA = table_NA
    assert quality_on_reconstructions(scorer, load_model(trained), data)["Skin_Tone"]["n"] == 1
    table_NA[data.rows("valid"), column] = torch.nan
    assert quality_on_reconstructions(scorer, load_model(trained), data) == {}


def test_what_the_data_has_no_labels_of_is_absent(
    scorer: Yardstick, faces: PreparedData, trained: Path
) -> None:
    data = PreparedData.open(faces.path)
    kept = [i for i, attribute in enumerate(data.attributes) if attribute.name != "Gray_Hair"]
    data.attributes = tuple(
        replace(data.attributes[i], kind="continuous")
        if data.attributes[i].name == "Smiling"
        else data.attributes[i]
        for i in kept
    )
    data.table_NA = data.table_NA[:, kept]
    whole, found = (quality_on_reconstructions(scorer, load_model(trained), d) for d in (faces, data))
    assert {"Gray_Hair", "Smiling"} <= set(whole)
    assert found == {name: scores for name, scores in whole.items() if name not in ("Gray_Hair", "Smiling")}


def test_a_model_of_other_images_or_attributes_is_refused(
    scorer: Yardstick, faces: PreparedData, trained: Path, pictures: Callable[..., Any]
) -> None:
    stored = load_model(trained)
    with pytest.raises(UsageError, match="takes images of 3×32×32, but those of pictures are 1×16×16"):
        quality_on_reconstructions(scorer, stored, pictures())
    other = pictures()
    other.channels, other.size = 3, 32
    with pytest.raises(UsageError, match="pictures: unknown attribute 'Young'"):
        quality_on_reconstructions(scorer, stored, other)
