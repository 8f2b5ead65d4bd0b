"""Small networks and attribute tables that tests of several folders share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from civae_core.model import IntactVAE

YOUNG, MALE = Attribute("Young", "binary"), Attribute("Male", "binary")
AGE = Attribute("Age", "continuous", low=0.0, high=100.0, mean=40.0, std=10.0)


@pytest.fixture
def roles() -> AttributeRoles:
    """One binary treatment; one binary and one continuous covariate."""
    return AttributeRoles(treatments=(YOUNG,), covariates=(MALE, AGE))


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A config of a network small enough for tests; keyword arguments go to the section named."""

    def make(
        objective: str = "intact",
        model: dict[str, Any] | None = None,
        loss: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
    ) -> Config:
        small = {"latent": 4, "width": 8, "stages": [1, 2], "prior_hidden": 16}
        return Config(
            objective=objective,
            data=DataConfig(path="data", treatment=["Young"], covariates=["Male", "Age"]),
            model=ModelConfig(**small | (model or {})),
            loss=LossConfig(**loss or {}),
            train=TrainConfig(**{"batch_size": 6, "lr_warmup": 0} | (train or {})),
        )

    return make


@pytest.fixture
def make_model(roles: AttributeRoles, make_config: Callable[..., Config]) -> Callable[..., IntactVAE]:
    """A small network with seeded weights; `perturbed` moves every weight off its start, FiLM's zeros included."""

    def make(
        size: int = 16,
        channels: int = 3,
        perturbed: bool = False,
        assigned: AttributeRoles = roles,
        seed: int = 0,
        **model: Any,
    ) -> IntactVAE:
        config = make_config(model={"prior": "xt"} | model).model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = IntactVAE(config, assigned, size, channels).eval()
            if perturbed:
                shake(built)
        return built

    return make


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Adds noise of standard deviation 0.1 to every parameter."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.fixture
def photos(roles: AttributeRoles) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Images in [0,1] with raw covariates and treatments of `roles`: (y_BCHW, x_BX, t_BT)."""

    def make(
        count: int = 4, size: int = 16, channels: int = 3, seed: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y_BCHW = torch.rand(count, channels, size, size, generator=generator)
        male_B = (torch.rand(count, generator=generator) < 0.5).float()
        age_B = 20 + 40 * torch.rand(count, generator=generator)
        t_BT = (torch.arange(count) % 2).float()[:, None]
        return y_BCHW, torch.stack([male_B, age_B], dim=1), t_BT

    return make
