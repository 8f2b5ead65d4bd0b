"""Settings without effect are named; baselines keep the settings that define them."""

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
        ({"model": {"prior_structure": "additive"}}, "model.prior_structure has no effect: there are no"),
        (
            {"model": {"prior": "x", "prior_structure": "low_rank"}, "data": {"covariates": ["Male"]}},
            "model.prior_structure has no effect: only `model.prior: xt`",
        ),
        ({"model": {"prior": "x"}, "loss": {"arm_balance": 1.0}}, "loss.arm_balance has no effect: only"),
        (
            {"model": {"prior": "x"}, "train": {"pairing_images": 64}},
            "train.pairing_images has no effect: no latent",
        ),
        (
            {"model": {"pairing": "none"}, "train": {"pairing_images": 64}},
            "train.pairing_images has no effect: no latent",
        ),
        ({"loss": {"beta": 0.0, "free_bits": 0.1}}, "loss.free_bits has no effect: loss.beta is 0"),
        ({"loss": {"weights": "none", "weight_cap": 5.0}}, "loss.weight_cap has no effect: loss.weights"),
        ({"objective": "cvae", "loss": {"weight_cap": 5.0}}, "loss.weight_cap has no effect: loss.weights"),
        ({"model": {"network": "original", "block": "inverted"}}, "model.block has no effect"),
        (
            {"model": {"looks_mask_width": 0.2, "place_latents": 0}},
            "model.looks_mask_width has no effect: it masks looks",
        ),
        (
            {"objective": "original", "model": {"mask_width": 0.2}},
            "model.mask_width has no effect: `objective: original` adds",
        ),
        (
            {"objective": "cvae", "model": {"noise_mask": "none", "mask_width": 0.2}},
            "model.mask_width has no effect: model.noise_mask is none",
        ),
        (
            {"model": {"scales": [1, 8], "sigma": "pixel"}},
            "model.sigma has no effect: with model.scales a layered picture has one σ",
        ),
        ({"model": {"deep": True}}, "model.deep has no effect: only `model.network: original`"),
        (
            {"model": {"network": "original", "layers": 8}},
            "model.layers has no effect: model.decoder is direct",
        ),
    ],
)
def test_an_idle_setting_is_named_with_its_reason(sections: dict[str, Any], text: str) -> None:
    (found,) = without_effect(config(**sections))
    assert found.startswith(text)


def test_defaults_and_settings_at_work_are_passed_over() -> None:
    assert without_effect(config(objective="original", data={"covariates": ["Male"]})) == []
    assert without_effect(config(model={"network": "original", "deep": True})) == [], "nor what it implies"
    assert (
        without_effect(config(model={"prior_hidden": 64}, loss={"weights": "inverse", "weight_cap": 5.0}))
        == []
    )


def test_switching_off_what_is_off_anyway_is_passed_over() -> None:
    off = {"noise_mask": "none", "latent_mask_width": None, "looks_mask_width": None}
    assert without_effect(config(objective="original", model=off)) == []
    assert without_effect(config(model={"decoder": "direct", "place_latents": 0, "prior": "x"} | off)) == []


@pytest.mark.parametrize("objective", ["cvae", "original"])
@pytest.mark.parametrize("lever", ["adversary", "hsic", "arm_balance", "reencode", "guidance", "free_bits"])
def test_a_baseline_refuses_every_lever(objective: str, lever: str) -> None:
    with pytest.raises(
        ValueError, match=rf"objective '{objective}' is a baseline: loss\.{lever} cannot be on"
    ):
        config(objective=objective, loss={lever: 0.5})
    assert getattr(config(loss={lever: 0.5}).loss, lever) == 0.5
    assert getattr(config().loss, lever) == 0, "off by default"


def test_levers_refuse_networks_that_they_cannot_work_with() -> None:
    with pytest.raises(ValueError, match=r"loss\.guidance: uses the attribute predictor"):
        config(loss={"guidance": 1.0}, model={"predictor": False})
    for lever in ("guidance", "reencode"):
        with pytest.raises(ValueError, match=rf"loss\.{lever}: decodes counterfactuals"):
            config(loss={lever: 1.0}, model={"norm": "batch"})
    config(
        loss={"adversary": 1.0, "hsic": 1.0, "arm_balance": 1.0}, model={"norm": "batch", "predictor": False}
    )


def test_the_original_has_the_sigma_of_its_squared_error() -> None:
    chosen = config(objective="original").model
    assert (chosen.sigma, chosen.sigma_init) == ("fixed", ORIGINAL_SIGMA)
    assert pytest.approx(1 / 8) == ORIGINAL_SIGMA**2
    with pytest.raises(ValueError, match=r"squared error, which fixes σ: model\.sigma cannot be 'scalar'"):
        config(objective="original", model={"sigma": "scalar"})
