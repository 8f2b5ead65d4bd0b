"""What an evaluation says of the attribute predictor: against a library, and before and after the card's readings."""

import html
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn

from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows
from civae_core.evaluation.calibration import ece_by_chance, predictor_quality, reliability
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.predictor_tables import predictor_tables
from civae_core.evaluation.report import render_evaluation
from civae_core.model.calibrated import UNCALIBRATED, Calibration
from civae_core.model.stored import StoredModel

CPU = torch.device("cpu")
MakeStored = Callable[..., StoredModel]
CARD = Calibration({"Young": 3.0, "Male": 0.5}, {"Skin_Tone": 0.2}, {}, "valid")


class Reader(nn.Module):
    """Outputs that depend on each image alone: the shades of three of its places."""

    def forward(self, y_BCHW: Tensor) -> Tensor:
        return 24 * (y_BCHW[:, 0, 2, (2, 16, 29)] - 0.5)


@pytest.fixture
def stored(make_stored: MakeStored) -> StoredModel:
    made = make_stored(covariates=("Male", "Skin_Tone"))
    made.model.predictor = Reader()  # type: ignore[assignment]
    return replace(made, card=replace(made.card, calibration=CARD))


@pytest.fixture
def chosen(stored: StoredModel, faces: PreparedData) -> LabelledRows:
    return labelled_rows(faces, stored.card.roles, "train")


def outputs_of(stored: StoredModel, faces: PreparedData, chosen: LabelledRows) -> np.ndarray:
    assert stored.model.predictor is not None
    found: Tensor = stored.model.predictor(chosen.read(faces, CPU)[0])
    return found.double().numpy()


def test_binary_attributes_as_sklearn_measures_them(
    stored: StoredModel, faces: PreparedData, chosen: LabelledRows
) -> None:
    found = predictor_quality(stored, faces, chosen, CPU)
    outputs_NA = outputs_of(stored, faces, chosen)
    for column, (name, label_N) in enumerate(
        {"Young": chosen.t_NT[:, 0].numpy(), "Male": chosen.x_NX[:, 0].numpy()}.items()
    ):
        for key, temperature in (("", CARD.temperatures[name]), ("_uncalibrated", 1.0)):
            p_N = 1 / (1 + np.exp(-outputs_NA[:, column] / temperature))
            assert found[name][f"nll{key}"] == pytest.approx(log_loss(label_N, p_N), rel=1e-6)
            share, said = calibration_curve(label_N, p_N, n_bins=10)
            counts = np.bincount(np.minimum((p_N * 10).astype(int), 9), minlength=10)
            ece = float((counts[counts > 0] / len(p_N) * np.abs(share - said)).sum())
            assert found[name][f"ece{key}"] == pytest.approx(ece, abs=1e-6)
        assert found[name]["auc"] == pytest.approx(roc_auc_score(label_N, outputs_NA[:, column]))
        assert found[name]["accuracy"] == pytest.approx(((outputs_NA[:, column] > 0) == label_N).mean())
        assert found[name]["temperature"] == CARD.temperatures[name]
        p_N = 1 / (1 + np.exp(-outputs_NA[:, column] / CARD.temperatures[name]))
        assert found[name]["unsure"] == pytest.approx((np.maximum(p_N, 1 - p_N) < 0.9).mean())
        assert 0 < found[name]["unsure"] < 1


def test_quantities_by_their_predicted_normal(
    stored: StoredModel, faces: PreparedData, chosen: LabelledRows
) -> None:
    found = predictor_quality(stored, faces, chosen, CPU)["Skin_Tone"]
    tone = stored.card.roles.covariates[1]
    label_N = chosen.x_NX[:, 1].double().numpy()
    mean_N = tone.mean + tone.std * outputs_of(stored, faces, chosen)[:, 2]
    assert found["mae"] == pytest.approx(np.abs(label_N - mean_N).mean())
    assert found["sd"] == 0.2
    assert found["nll"] == pytest.approx(-norm.logpdf(label_N, mean_N, 0.2).mean())
    assert found["nll_uncalibrated"] == pytest.approx(-norm.logpdf(label_N, mean_N, tone.std).mean())
    low, high = norm.interval(0.95, mean_N, 0.2)
    assert found["within_95"] == pytest.approx(((low <= label_N) & (label_N <= high)).mean())
    bare = replace(stored, card=replace(stored.card, calibration=UNCALIBRATED))
    plain = predictor_quality(bare, faces, chosen, CPU)["Skin_Tone"]
    assert "sd" not in plain and plain["nll"] == plain["nll_uncalibrated"] == found["nll_uncalibrated"]


def test_calibration_error_by_chance_is_that_of_labels_drawn_as_predicted() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (100, 2500):
        probability_N = torch.rand(count, generator=generator, dtype=torch.float64)
        errors = []
        for _ in range(100):
            label_N = torch.bernoulli(probability_N, generator=generator)
            errors.append(reliability("", probability_N, label_N).error)
        expected = sum(errors) / 100
        assert ece_by_chance(probability_N) == pytest.approx(expected, rel=0.08)
        # In each of ten bins the mean absolute error of a share is √(2/π) of its standard deviation.
        assert expected == pytest.approx((2 / np.pi * 10 / count / 6) ** 0.5, rel=0.12)
    assert ece_by_chance(torch.ones(50, dtype=torch.float64)) == 0


def test_missing_labels_are_left_out_attribute_by_attribute(
    stored: StoredModel, faces: PreparedData, chosen: LabelledRows
) -> None:
    x_NX, t_NT = chosen.x_NX.clone(), torch.full_like(chosen.t_NT, torch.nan)
    x_NX[::2, 0] = torch.nan
    found = predictor_quality(stored, faces, LabelledRows(chosen.rows_N, x_NX, t_NT), CPU)
    assert set(found) == {"Male", "Skin_Tone"}
    half = chosen[torch.arange(1, len(chosen), 2)]
    assert found["Male"] == predictor_quality(stored, faces, half, CPU)["Male"]
    assert found["Skin_Tone"]["n"] == len(chosen)


def test_it_is_part_of_an_evaluation_and_of_its_page(stored: StoredModel, faces: PreparedData) -> None:
    numbers = evaluate([stored], faces, limit=6, pictures=False).numbers
    (model,) = numbers["methods"].keys() - {"copy"}
    test = labelled_rows(faces, stored.card.roles, "test")
    expected = predictor_quality(stored, faces, test[evenly_spread(len(test), 6)], CPU)
    assert numbers["predictor"] == {model: expected}
    page = html.unescape(render_evaluation(numbers, []))
    row = re.search(r'<th scope="row">Male</th>(<td>.*?)</tr>', page[page.index("filled in?") :], re.S)
    assert row is not None
    assert re.findall(r"<td>(.*?)</td>", row[1])[1] == f"{100 * expected['Male']['accuracy']:.1f} %"

    stored.model.predictor = None
    assert predictor_quality(stored, faces, test, CPU) == {}
    assert "filled in?" not in render_evaluation({**numbers, "predictor": None}, [])


def test_tables_show_what_calibration_changed_in_brackets() -> None:
    quality = {
        "Male": {
            "n": 1200,
            "accuracy": 0.95,
            "auc": 0.981,
            "ece": 0.012,
            "ece_uncalibrated": 0.051,
            "nll": 0.12,
        }
        | {"nll_uncalibrated": 0.12, "ece_by_chance": 0.009, "temperature": 1.8, "unsure": 0.071},
        "Age": {"n": 3, "mae": 0.123456, "sd": 0.2, "nll": -0.5, "nll_uncalibrated": 0.75},
    }
    binary, quantity = predictor_tables({"ours": quality})
    assert binary["rows"] == [
        {
            "attribute": "Male",
            "cells": ["1,200", "95.0 %", "0.981", "0.012 (0.051)", "0.009", "0.120", "1.80", "7.1 %"],
        }
    ]
    assert quantity["rows"][0]["cells"] == ["3", "–", "0.123", "0.2", "–", "-0.500 (0.750)"]
    assert [len(table["columns"]) for table in (binary, quantity)] == [8, 6]
    assert predictor_tables(None) == predictor_tables({"ours": {}}) == []
