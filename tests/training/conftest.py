"""A small learner that the tests of training steps share."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from learners import SIZE, MakeLearner

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.model import IntactVAE
from civae_core.training.device import Compute
from civae_core.training.learner import Learner


@pytest.fixture
def make_learner(roles: AttributeRoles, make_config: Callable[..., Config]) -> MakeLearner:
    def make(
        device: str = "cpu", precision: str = "fp32", channels_last: bool = False, **sections: Any
    ) -> Learner:
        config = make_config(**sections)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = IntactVAE(config.model, roles, SIZE, 3)
        compute = Compute(torch.device(device), precision, channels_last)  # type: ignore[arg-type]
        return Learner(model, config, roles, compute)

    return make


@pytest.fixture
def fused_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the fused optimiser on `meta`: it has a kernel there, but an earlier check accepts only real devices."""
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_args, **_more: None, raising=False)
