"""How far from training a picture is: the limit that held-out images set, and where it is kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changed_cards import with_card
from torch.nn.functional import mse_loss

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import Config
from civae_core.errors import DataError
from civae_core.model import IntactVAE
from civae_core.model.familiar import (
    Familiarity,
    describe_unfamiliar,
    fit_familiarity,
    reconstruction_errors,
)
from civae_core.model.stored import ModelCard, load_model, read_card, save_model

KNOWN = Familiarity(0.002, 0.005, 0.99, 256, "valid")


@pytest.mark.parametrize(("images", "beyond"), [(99, 0.01), (100, 1 / 101), (199, 0.01), (256, 2 / 257)])
def test_at_most_one_in_a_hundred_pictures_of_the_same_kind_is_beyond_the_limit(
    images: int, beyond: float
) -> None:
    """If errors are uniform on [0,1], a share of 1 − limit is beyond the limit, whose mean is known exactly."""
    generator = np.random.default_rng(0)
    found = [fit_familiarity(generator.random(images), "valid") for _ in range(1_000)]
    shares = [1 - known.limit for known in found if known is not None]
    assert len(shares) == 1_000 and beyond <= 0.01
    assert np.mean(shares) == pytest.approx(beyond, abs=5 * beyond / 1_000**0.5)


def test_what_is_kept_of_the_errors() -> None:
    errors = np.arange(1, 200) / 1000
    known = fit_familiarity(errors[::-1], "test")
    assert known == Familiarity(0.1, 0.198, 0.99, 199, "test")
    assert known.excess(0.198) is None and known.excess(0.0) is None
    assert known.excess(0.396) == pytest.approx(2.0)


def test_errors_that_set_no_limit() -> None:
    errors = np.linspace(0.01, 0.02, 99)
    assert fit_familiarity(errors, "valid") is not None
    assert fit_familiarity(errors[:98], "valid") is None, "too few"
    assert fit_familiarity(np.append(errors, np.nan), "valid") is None
    assert fit_familiarity(np.append(errors, np.inf), "valid") is None
    assert fit_familiarity(np.zeros(200), "valid") is None, "every picture would be infinitely far beyond"
    assert fit_familiarity(np.zeros(0), "valid") is None


def test_errors_are_each_images_mean_square() -> None:
    y_BCHW, found_BCHW = torch.rand(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = [float(mse_loss(found, y)) for found, y in zip(found_BCHW, y_BCHW, strict=True)]
    errors_B = reconstruction_errors(y_BCHW.numpy(), found_BCHW.numpy())
    np.testing.assert_allclose(errors_B, wanted, rtol=1e-5)


@pytest.fixture
def file(
    tmp_path: Path,
    roles: AttributeRoles,
    make_config: Callable[..., Config],
    make_model: Callable[..., IntactVAE],
) -> Path:
    shape = {"size": 16, "channels": 3, "crop": None}
    data = {"name": "faces", "path": "data", "fingerprint": "ab" * 32}
    card = ModelCard(make_config(model={"prior": "xt"}), roles, shape, 1200, data, [], familiarity=KNOWN)
    save_model(make_model(), card, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_it_travels_with_the_model_and_older_files_know_nothing(file: Path) -> None:
    known = load_model(file).card
    assert known.familiarity == KNOWN
    with_card(file, lambda values: values.pop("familiarity"))
    older = load_model(file)
    assert older.card == replace(known, familiarity=None)
    save_model(older.model, older.card, file)
    assert read_card(file) == older.card, "what nobody knows is absent, too"


@pytest.mark.parametrize(
    "damage",
    [
        None,
        [],
        {"median": 0.1},
        KNOWN.to_dict() | {"limit": 0.001},
        KNOWN.to_dict() | {"median": -0.1},
        KNOWN.to_dict() | {"median": 0.0, "limit": 0.0},
        KNOWN.to_dict() | {"limit": 1e999},
        KNOWN.to_dict() | {"level": 1.0},
        KNOWN.to_dict() | {"level": "most"},
        KNOWN.to_dict() | {"images": 0},
        KNOWN.to_dict() | {"images": 1.5},
        KNOWN.to_dict() | {"split": 3},
    ],
)
def test_what_cannot_be_is_refused_as_damage(file: Path, damage: Any) -> None:
    with_card(file, lambda values: values.update(familiarity=damage))
    with pytest.raises(DataError, match=r"model.safetensors: its metadata is damaged"):
        read_card(file)


def test_one_picture_is_named_and_several_are_counted() -> None:
    one = describe_unfamiliar([("a.jpg", 5.32)], 1)
    assert one.startswith("a.jpg: unlike") and "99% of held-out images, 5.3 times the limit)" in one
    assert "just beyond the limit" in describe_unfamiliar([("a.jpg", 1.01)], 1)
    assert describe_unfamiliar([("a.jpg", 5.32), ("b.jpg", 2.0)], 40).startswith(
        "2 of 40 pictures are unlike"
    )
    assert describe_unfamiliar([("a.jpg", 5.32)], 40).startswith("1 of 40 pictures is unlike")
