"""Who says what a picture shows: --attr, then a table, then the predictor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from civae_core.attributes import AttributeRoles
from civae_core.errors import UsageError
from civae_core.inference.labels import Unsure, describe_unsure, fill_labels
from civae_core.inference.pictures import Picture
from civae_core.model import IntactVAE
from civae_core.model.calibrated import Calibration


class Oracle(nn.Module):
    """A predictor with fixed outputs for Young, Male (logits) and Age (standardised), a row a picture."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, y_BCHW: Tensor) -> Tensor:
        return self.rows[: len(y_BCHW)]


@pytest.fixture
def model(make_model: Callable[..., IntactVAE]) -> IntactVAE:
    made = make_model(predictor=False)
    made.predictor = Oracle([[3.0, -1.0, 0.5], [-2.0, 0.1, -1.0]])  # type: ignore[assignment]
    return made


def pictures(*known: dict[str, float]) -> list[Picture]:
    pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    return [Picture(f"{number}.png", str(number), pixels, values) for number, values in enumerate(known)]


IMAGES = torch.zeros(2, 3, 16, 16)


def test_what_nobody_said_is_predicted(model: IntactVAE, roles: AttributeRoles) -> None:
    labels = fill_labels(model, roles, IMAGES, pictures({}, {}), {})
    assert labels.t_BT.tolist() == [[1.0], [0.0]]
    torch.testing.assert_close(labels.x_BX, torch.tensor([[0.0, 45.0], [1.0, 30.0]]))
    assert labels.predicted[0] == {"Young": 0.9526, "Male": 0.2689, "Age": None}
    assert labels.factual(1, roles) == {"Young": 0.0, "Male": 1.0, "Age": 30.0}


def test_a_table_wins_over_the_predictor_picture_by_picture(model: IntactVAE, roles: AttributeRoles) -> None:
    labels = fill_labels(model, roles, IMAGES, pictures({"Young": 0.0, "Beard": 1.0}, {"Age": 61.0}), {})
    assert labels.factual(0, roles) == {"Young": 0.0, "Male": 0.0, "Age": 45.0}
    assert labels.factual(1, roles) == {"Young": 0.0, "Male": 1.0, "Age": 61.0}
    assert [list(predicted) for predicted in labels.predicted] == [["Male", "Age"], ["Young", "Male"]]


def test_what_is_stated_wins_over_both(model: IntactVAE, roles: AttributeRoles) -> None:
    labels = fill_labels(
        model, roles, IMAGES, pictures({"Young": 0.0, "Age": 61.0}, {}), {"Young": 1, "Male": 1}
    )
    assert labels.factual(0, roles) == {"Young": 1.0, "Male": 1.0, "Age": 61.0}
    assert labels.predicted[0] == {}
    assert list(labels.predicted[1]) == ["Age"]


def test_without_a_predictor_the_unknown_is_refused(
    make_model: Callable[..., IntactVAE], roles: AttributeRoles
) -> None:
    bare = make_model(predictor=False)
    known = {"Young": 1.0, "Male": 0.0, "Age": 40.0}
    assert fill_labels(bare, roles, IMAGES, pictures(known, known), {}).predicted == [{}, {}]
    incomplete = {"Young": 1.0}
    with pytest.raises(UsageError, match=r"^1.png: Male not stated, and .* without a predictor") as caught:
        fill_labels(bare, roles, IMAGES, pictures(known, incomplete), {"Age": 30.0})
    assert "--attr" in (caught.value.hint or "")


def test_probabilities_are_read_as_the_card_says_and_continuous_ones_have_a_spread(
    model: IntactVAE, roles: AttributeRoles
) -> None:
    card = Calibration({"Young": 2.0, "Male": 0.25}, {"Age": 4.5})
    labels = fill_labels(model, roles, IMAGES, pictures({}, {"Age": 61.0}), {}, card)
    assert labels.predicted[0] == {"Young": 0.8176, "Male": 0.018, "Age": None}
    assert labels.predicted[1] == {"Young": 0.2689, "Male": 0.5987}
    assert labels.spreads == [{"Age": 4.5}, {}]
    assert labels.plausible.counts == [1, 2]
    assert labels.unsure == [Unsure((), 1, ("Young",)), Unsure(("Male",), 2, ("Young",))]


def test_unsure_covariates_have_several_values_and_a_treatment_its_likelier_one(
    model: IntactVAE, roles: AttributeRoles
) -> None:
    card = Calibration({}, {"Age": 9.0})
    labels = fill_labels(model, roles, IMAGES, pictures({}, {}), {}, card)
    assert labels.plausible.counts == [6, 6]
    first, second = labels.plausible.x_RX[:6], labels.plausible.x_RX[6:]
    assert {male for male, _ in first.tolist()} == {0.0, 1.0} == {male for male, _ in second.tolist()}
    weight_R = labels.plausible.weight_R
    male_R = labels.plausible.x_RX[:, 0]
    assert float((weight_R * male_R)[:6].sum()) == pytest.approx(torch.tensor(-1.0).sigmoid().item())
    assert float((weight_R * labels.plausible.x_RX[:, 1])[:6].sum()) == pytest.approx(45.0)
    assert labels.t_BT.tolist() == [[1.0], [0.0]]
    assert labels.unsure[0] == Unsure(("Male", "Age"), 6), "Young is sure"
    assert labels.unsure[1] == Unsure(("Male", "Age"), 6, ("Young",))


def test_what_is_stated_or_tabled_is_never_unsure(model: IntactVAE, roles: AttributeRoles) -> None:
    labels = fill_labels(model, roles, IMAGES, pictures({"Male": 1.0}, {}), {"Young": 1.0, "Age": 40.0})
    assert labels.plausible.counts == [1, 2]
    assert labels.unsure == [Unsure(), Unsure(("Male",), 2)]
    stated = fill_labels(model, roles, IMAGES, pictures({}, {}), {"Young": 1.0, "Age": 40.0, "Male": 0.0})
    assert stated.unsure == [Unsure(), Unsure()] and stated.predicted == [{}, {}]


def test_a_model_that_knows_no_spread_takes_the_mean(model: IntactVAE, roles: AttributeRoles) -> None:
    labels = fill_labels(model, roles, IMAGES, pictures({"Male": 1.0}, {"Male": 1.0}), {"Young": 1.0})
    assert labels.plausible.counts == [1, 1]
    assert labels.spreads == [{}, {}] and labels.predicted[0] == {"Age": None}


def test_the_unsure_is_told_in_sentences() -> None:
    texts = describe_unsure(
        "a.png", Unsure(("Male", "Age"), 6, ("Young",)), {"Male": 0.27, "Age": None, "Young": 0.6}
    )
    assert texts == [
        "a.png: unsure of Male (1 with probability 0.27), Age; the answer is the mean over 6 plausible combinations",
        "a.png: unsure of Young (1 with probability 0.60); taken at its likelier value",
    ]
    assert describe_unsure("a.png", Unsure(), {"Male": 0.99}) == []
