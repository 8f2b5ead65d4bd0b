"""Models with untrained weights, as if read from disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.evaluation.asked import Asked
from civae_core.evaluation.question import direction
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, StoredModel


@pytest.fixture(scope="session")
def made_old(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """200 prepared faces at 32 px; the truth under Young=0, which the old have already, is known for 40 of them."""
    source = faces_source(
        count=200, seed=1, overlap=0.5, truths=[TruthSpec("Young=0", {"Young": 0.0})], size=32, channels=3
    )
    out = tmp_path_factory.mktemp("made-old") / "faces"
    return prepare(source, out, workers=1, max_bad=MaxBad.parse("0")).data


@pytest.fixture
def make_stored(
    faces: PreparedData, make_config: Callable[..., Config], make_model: Callable[..., IntactVAE]
) -> Callable[..., StoredModel]:
    """A small model for `faces` with treatment Young, covariate Male and perturbed weights."""
    columns = {attribute.name: attribute for attribute in faces.attributes}
    columns["Hat"] = Attribute("Hat", "binary")  # not in the faces' table

    def make(
        objective: str = "intact",
        path: str = "run/checkpoints/step-1/model.safetensors",
        treatments: tuple[str, ...] = ("Young",),
        covariates: tuple[str, ...] = ("Male",),
        size: int = 32,
        **model: Any,
    ) -> StoredModel:
        roles = AttributeRoles(
            tuple(columns[name] for name in treatments), tuple(columns[name] for name in covariates)
        )
        settings = {"prior": "xt" if objective == "intact" else "standard"} | model
        config = make_config(objective=objective, model=settings)
        identity = {"name": faces.name, "path": str(faces.path), "fingerprint": faces.fingerprint}
        preprocessing = dict(faces.preprocessing) | {"size": size}
        card = ModelCard(config, roles, preprocessing, 100, identity, [])
        network = make_model(size=size, perturbed=True, assigned=roles, **settings).requires_grad_(False)
        return StoredModel(network, card, Path(path))

    return make


@pytest.fixture
def make_asked() -> Callable[..., Asked]:
    """A batch of questions to a method; whatever a test does not state is filled in to fit the images."""

    def make(y_BCHW: Tensor, truth_BCHW: Tensor | None = None, **stated: Any) -> Asked:
        count = len(y_BCHW)
        t_BT = stated.pop("t_BT", torch.zeros(count, 1))
        t_new_BT = stated.pop("t_new_BT", 1 - t_BT)
        values = {
            "rows_B": torch.arange(count),
            "x_BX": torch.zeros(count, 1),
            "direction_B": direction(t_BT, t_new_BT),
        }
        return Asked(y_BCHW=y_BCHW, truth_BCHW=truth_BCHW, t_BT=t_BT, t_new_BT=t_new_BT, **(values | stated))

    return make
