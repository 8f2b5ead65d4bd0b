"""Training of a yardstick: it learns, it is reproducible, it does not read one attribute off another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.errors import DataError
from civae_core.model.distributions import standard_normal
from civae_core.yardstick import Yardstick, fit, train_yardstick
from civae_core.yardstick.fit import scorer_loss, targets
from civae_core.yardstick.networks import LATENT

CPU = torch.device("cpu")


def state(yardstick: Yardstick) -> dict[str, Tensor]:
    return yardstick.networks.state_dict()


def test_a_scorer_learns_what_it_is_shown(scorer: Yardstick, faces: PreparedData) -> None:
    card = scorer.card
    learned = [attribute.name for attribute in scorer.attributes]
    assert learned == [a.name for a in faces.attributes if a.name in learned]
    assert {"Young", "Male", "Gray_Hair", "Skin_Tone"} <= set(learned)
    assert (card.size, card.channels, card.images, card.seed) == (32, 3, 960, 0)
    assert card.data == {"name": faces.name, "fingerprint": faces.fingerprint}
    assert card.roles == {"treatments": ["Young"], "descendants": ["Gray_Hair", "Wrinkles"]}
    for quality in (card.photos, card.blurred):
        assert quality["Young"]["n"] == len(faces.rows("valid")) == 30
        assert quality["Young"]["auc"] > 0.9
        assert quality["Skin_Tone"]["r2"] > 0.3
    assert card.photos["Young"] != card.blurred["Young"] or card.photos["Male"] != card.blurred["Male"]


def test_a_reading_is_what_the_networks_say_of_clamped_images(scorer: Yardstick) -> None:
    y_BCHW = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    reading = scorer.read(y_BCHW)
    assert reading.outputs_BA.shape == (5, len(scorer.attributes))
    assert not any(parameter.requires_grad for parameter in scorer.networks.parameters())
    assert not reading.outputs_BA.requires_grad and not reading.latent.mean_BZ.requires_grad
    outputs_BA, features_BF = scorer.networks.scorer(y_BCHW.clamp(0, 1))
    torch.testing.assert_close(reading.outputs_BA, outputs_BA)
    torch.testing.assert_close(reading.features_BF, features_BF)
    # One image alone is read as it is among others.
    torch.testing.assert_close(scorer.read(y_BCHW[:1]).outputs_BA, outputs_BA[:1], rtol=1e-4, atol=1e-4)
    assert scorer.index("Male") == [a.name for a in scorer.attributes].index("Male")
    with pytest.raises(KeyError):
        scorer.index("Hat")


def test_the_latent_space_tells_images_apart(scorer: Yardstick, faces: PreparedData) -> None:
    y_BCHW = faces.images(faces.rows("test")).float() / 255
    latent = scorer.read(y_BCHW).latent
    assert latent.mean_BZ.shape == (30, LATENT)
    kl_B = latent.kl(standard_normal(30, LATENT, like=y_BCHW))
    assert kl_B.mean() > 1.0 and latent.mean_BZ.std(dim=0).max() > 0.1


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(
    pictures: Callable[..., Any],
) -> None:
    data, roles = pictures(), AttributeRoles((), ())

    def fingerprint(seed: int, images: int = 64) -> str:
        return train_yardstick(data, roles, images=images, seed=seed, device=CPU).fingerprint

    torch.manual_seed(1)
    first = fingerprint(0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert fingerprint(0) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(1) != first
    assert fingerprint(0, images=33) == first != fingerprint(0, images=32)


def shift_under_right(yardstick: Yardstick, data: Any) -> float:
    """How far Left's logit moves when only Right changes, in standard deviations of that logit."""
    rows_N = data.rows("test")
    logit_N = yardstick.read(data.images(rows_N).float() / 255).outputs_BA[:, yardstick.index("Left")]
    right_N = data.column("Right")[rows_N] > 0.5
    return float((logit_N[right_N].mean() - logit_N[~right_N].mean()) / logit_N.std())


def test_a_balanced_scorer_does_not_read_one_attribute_off_another(
    pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(agree=0.9, faint=0.2)
    roles = AttributeRoles.assign(data.attributes, ["Right"], ["Left"])
    balanced = shift_under_right(train_yardstick(data, roles, images=1280, device=CPU), data)
    monkeypatch.setattr(fit, "balanced_weights", lambda labels_NA, *_: torch.ones_like(labels_NA))
    naive = shift_under_right(train_yardstick(data, roles, images=1280, device=CPU), data)
    assert naive > 0.4
    assert abs(balanced) < 0.25


def test_the_loss_is_weighted_and_blind_to_missing_labels() -> None:
    outputs_BA = torch.tensor([[0.3, 2.0], [-1.2, 0.5]])
    weights_BA = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    is_binary_A = torch.tensor([True, False])
    targets_BA = torch.tensor([[1.0, -1.5], [0.0, 0.25]])
    entropy = 2.0 * torch.log(1 + torch.exp(torch.tensor(-0.3)))
    squares = 0.5 * (1.0 * 3.5**2 + 3.0 * 0.25**2)
    found = scorer_loss(outputs_BA, targets_BA, weights_BA, is_binary_A)
    torch.testing.assert_close(found, (entropy + squares) / 4)
    targets_BA[1, 0] = 1.0
    assert scorer_loss(outputs_BA, targets_BA, weights_BA, is_binary_A) == found


def test_targets_are_standardised_and_missing_ones_zero() -> None:
    table = (Attribute("Male", "binary"), Attribute("Age", "continuous", mean=40.0, std=10.0))
    found = targets(torch.tensor([[1.0, 55.0], [torch.nan, torch.nan]]), table)
    assert found.tolist() == [[1.0, 1.5], [0.0, 0.0]]


def test_every_batch_is_augmented_in_its_own_way(
    pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def watched(y_BCHW: Tensor, seed: int, step: int) -> Tensor:
        asked.append((seed, step))
        return y_BCHW

    monkeypatch.setattr(fit, "mirrored", watched)
    train_yardstick(pictures(count=100), AttributeRoles((), ()), images=96, seed=4, device=CPU)
    assert asked == [(4, 0), (4, 32), (4, 64)]


@pytest.mark.parametrize("images", [1, 33, 320])
def test_the_shortest_trainings_end(pictures: Callable[..., Any], images: int) -> None:
    trained = train_yardstick(pictures(count=100), AttributeRoles((), ()), images=images, device=CPU)
    assert all(tensor.isfinite().all() for tensor in state(trained).values())
    assert trained.card.photos["Left"]["n"] == 60


def test_an_attribute_without_variation_is_not_judged(pictures: Callable[..., Any]) -> None:
    data = pictures(count=200)
    data.table_NA[:, 0] = 1.0
    trained = train_yardstick(data, AttributeRoles((), ()), images=32, device=CPU)
    assert [attribute.name for attribute in trained.attributes] == ["Right"]
    assert set(trained.card.photos) == {"Right"}
    data.table_NA[:, 1] = torch.nan
    with pytest.raises(DataError, match="varies enough"):
        train_yardstick(data, AttributeRoles((), ()), images=32, device=CPU)


def test_the_recipe_reaches_the_training(
    pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, roles = pictures(), AttributeRoles((), ())
    plain = train_yardstick(data, roles, images=64, device=CPU).fingerprint
    for change in ({"peak_lr": 1e-3}, {"noise": 0.1}, {"strongest_blur": 0.1}, {"weight_cap": 1.0}):
        with monkeypatch.context() as patched:
            patched.setattr(fit, "RECIPE", replace(fit.RECIPE, **change))
            assert train_yardstick(data, roles, images=64, device=CPU).fingerprint != plain, change
