"""Settings without effect are named; baselines are what defines them."""

from typing import Any

import pytest

from civae_core.config.effects import without_effect
from civae_core.config.schema import ORIGINAL_SIGMA, Config


def config(**sections: Any) -> Config:
    data = {"path": "data", "treatment": ["Young"]} | sections.pop("data", {})
    return Config.model_validate({"data": data} | sections)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"model": {"prior": "standard", "prior_hidden": 64}}, "model.prior_hidden has no effect: N(0,I)"),
        ({"model": {"x_in_decoder": False}}, "model.x_in_decoder has no effect: there are no covariates"),
        ({"loss": {"weights": "none", "weight_cap": 5.0}}, "loss.weight_cap has no effect: loss.weights"),
        ({"objective": "cvae", "loss": {"weight_cap": 5.0}}, "loss.weight_cap has no effect: loss.weights"),
    ],
)
def test_an_idle_setting_is_named_with_its_reason(sections: dict[str, Any], text: str) -> None:
    (found,) = without_effect(config(**sections))
    assert found.startswith(text)


def test_defaults_and_settings_at_work_are_passed_over() -> None:
    assert without_effect(config(objective="original", data={"covariates": ["Male"]})) == []
    assert without_effect(config(model={"prior_hidden": 64}, loss={"weight_cap": 5.0})) == []


def test_the_original_has_the_sigma_of_its_squared_error() -> None:
    chosen = config(objective="original").model
    assert (chosen.sigma, chosen.sigma_init) == ("fixed", ORIGINAL_SIGMA)
    assert pytest.approx(1 / 8) == ORIGINAL_SIGMA**2
    with pytest.raises(ValueError, match=r"squared error, which fixes σ: model\.sigma cannot be 'scalar'"):
        config(objective="original", model={"sigma": "scalar"})
