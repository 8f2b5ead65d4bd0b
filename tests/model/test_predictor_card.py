"""A model's file stores how its predictor is calibrated; files from before calibration are read as they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changed_cards import with_card

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import Config
from civae_core.errors import DataError
from civae_core.model import IntactVAE
from civae_core.model.calibrated import UNCALIBRATED, Calibration
from civae_core.model.stored import ModelCard, load_model, read_card, save_model

FITTED = Calibration(
    {"Young": 1.75, "Male": 0.8}, {"Age": 6.5}, {"Young": 90, "Male": 88, "Age": 90}, "valid"
)


@pytest.fixture
def file(
    tmp_path: Path,
    roles: AttributeRoles,
    make_config: Callable[..., Config],
    make_model: Callable[..., IntactVAE],
) -> Path:
    shape = {"size": 16, "channels": 3, "crop": None}
    data = {"name": "faces", "path": "data", "fingerprint": "ab" * 32}
    card = ModelCard(make_config(model={"prior": "xt"}), roles, shape, 1200, data, [], FITTED)
    save_model(make_model(), card, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_calibration_travels_with_the_model(file: Path) -> None:
    assert load_model(file).card.calibration == FITTED


def test_a_file_that_is_older_than_calibration_is_read_as_uncalibrated(file: Path) -> None:
    fitted = read_card(file)
    with_card(file, lambda values: values.pop("calibration"))
    assert load_model(file).card == replace(fitted, calibration=UNCALIBRATED)


@pytest.mark.parametrize(
    "damage",
    [
        None,
        [],
        {"temperatures": {}},
        {"temperatures": {"Male": -1.0}, "spreads": {}, "images": {}, "split": ""},
    ],
)
def test_a_damaged_calibration_is_named(file: Path, damage: Any) -> None:
    with_card(file, lambda values: values.update(calibration=damage))
    with pytest.raises(DataError, match=r"model.safetensors: its metadata is damaged"):
        read_card(file)
