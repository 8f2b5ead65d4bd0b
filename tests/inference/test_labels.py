"""Who says what a picture shows: --attr, then a table, then the predictor."""

from dataclasses import dataclass

import numpy as np
import pytest

from civae_core.attributes import AttributeRoles
from civae_core.errors import UsageError
from civae_core.inference.labels import Labels, Unsure, describe_unchanged, describe_unsure
from civae_core.inference.labels import fill_labels as fill_labels_by
from civae_core.inference.pictures import Picture
from civae_core.model.calibrated import UNCALIBRATED, Calibration


@dataclass(frozen=True)
class Oracle:
    """The part of an engine that labels need, with fixed outputs for Young, Male (logits) and Age (standardised)."""

    roles: AttributeRoles
    calibration: Calibration = UNCALIBRATED
    silent: bool = False

    def guess(self, y_BCHW: np.ndarray) -> np.ndarray | None:
        rows = [[3.0, -1.0, 0.5], [-2.0, 0.1, -1.0]]
        return None if self.silent else np.array(rows, dtype=np.float32)[: len(y_BCHW)]


def pictures(*known: dict[str, float]) -> list[Picture]:
    pixels = np.zeros((3, 16, 16), dtype=np.uint8)
    return [Picture(f"{number}.png", str(number), pixels, values) for number, values in enumerate(known)]


IMAGES = np.zeros((2, 3, 16, 16), dtype=np.float32)


def fill_labels(
    roles: AttributeRoles,
    shown: list[Picture],
    stated: dict[str, float],
    calibration: Calibration = UNCALIBRATED,
) -> Labels:
    return fill_labels_by(Oracle(roles, calibration), IMAGES, shown, stated)  # type: ignore[arg-type]


def test_what_nobody_said_is_predicted(roles: AttributeRoles) -> None:
    labels = fill_labels(roles, pictures({}, {}), {})
    assert labels.t_BT.tolist() == [[1.0], [0.0]]
    np.testing.assert_allclose(labels.x_BX, [[0.0, 45.0], [1.0, 30.0]])
    assert labels.predicted[0] == {"Young": 0.9526, "Male": 0.2689, "Age": None}
    assert labels.factual(1, roles) == {"Young": 0.0, "Male": 1.0, "Age": 30.0}


def test_a_table_wins_over_the_predictor_picture_by_picture(roles: AttributeRoles) -> None:
    labels = fill_labels(roles, pictures({"Young": 0.0, "Beard": 1.0}, {"Age": 61.0}), {})
    assert labels.factual(0, roles) == {"Young": 0.0, "Male": 0.0, "Age": 45.0}
    assert labels.factual(1, roles) == {"Young": 0.0, "Male": 1.0, "Age": 61.0}
    assert [list(predicted) for predicted in labels.predicted] == [["Male", "Age"], ["Young", "Male"]]


def test_what_is_stated_wins_over_both(roles: AttributeRoles) -> None:
    labels = fill_labels(roles, pictures({"Young": 0.0, "Age": 61.0}, {}), {"Young": 1, "Male": 1})
    assert labels.factual(0, roles) == {"Young": 1.0, "Male": 1.0, "Age": 61.0}
    assert labels.predicted[0] == {}
    assert list(labels.predicted[1]) == ["Age"]


def test_without_a_predictor_the_unknown_is_refused(roles: AttributeRoles) -> None:
    bare = Oracle(roles, silent=True)
    known = {"Young": 1.0, "Male": 0.0, "Age": 40.0}
    assert fill_labels_by(bare, IMAGES, pictures(known, known), {}).predicted == [{}, {}]
    incomplete = {"Young": 1.0}
    with pytest.raises(UsageError, match=r"^1.png: Male not stated, and .* without a predictor") as caught:
        fill_labels_by(bare, IMAGES, pictures(known, incomplete), {"Age": 30.0})
    assert "--attr" in (caught.value.hint or "")


def test_probabilities_are_read_as_the_card_says_and_continuous_ones_have_a_spread(
    roles: AttributeRoles,
) -> None:
    card = Calibration({"Young": 2.0, "Male": 0.25}, {"Age": 4.5})
    labels = fill_labels(roles, pictures({}, {"Age": 61.0}), {}, card)
    assert labels.predicted[0] == {"Young": 0.8176, "Male": 0.018, "Age": None}
    assert labels.predicted[1] == {"Young": 0.2689, "Male": 0.5987}
    assert labels.spreads == [{"Age": 4.5}, {}]
    assert labels.plausible.counts == [1, 2]
    assert labels.unsure == [Unsure((), 1, ("Young",)), Unsure(("Male",), 2, ("Young",))]


def test_unsure_covariates_have_several_values_and_a_treatment_its_likelier_one(
    roles: AttributeRoles,
) -> None:
    card = Calibration({}, {"Age": 9.0})
    labels = fill_labels(roles, pictures({}, {}), {}, card)
    assert labels.plausible.counts == [6, 6]
    first, second = labels.plausible.x_RX[:6], labels.plausible.x_RX[6:]
    assert {male for male, _ in first.tolist()} == {0.0, 1.0} == {male for male, _ in second.tolist()}
    weight_R = labels.plausible.weight_R
    male_R = labels.plausible.x_RX[:, 0]
    assert float((weight_R * male_R)[:6].sum()) == pytest.approx(1 / (1 + np.e))
    assert float((weight_R * labels.plausible.x_RX[:, 1])[:6].sum()) == pytest.approx(45.0)
    assert labels.t_BT.tolist() == [[1.0], [0.0]]
    assert labels.unsure[0] == Unsure(("Male", "Age"), 6), "Young is sure"
    assert labels.unsure[1] == Unsure(("Male", "Age"), 6, ("Young",))


def test_what_is_stated_or_tabled_is_never_unsure(roles: AttributeRoles) -> None:
    labels = fill_labels(roles, pictures({"Male": 1.0}, {}), {"Young": 1.0, "Age": 40.0})
    assert labels.plausible.counts == [1, 2]
    assert labels.unsure == [Unsure(), Unsure(("Male",), 2)]
    stated = fill_labels(roles, pictures({}, {}), {"Young": 1.0, "Age": 40.0, "Male": 0.0})
    assert stated.unsure == [Unsure(), Unsure()] and stated.predicted == [{}, {}]


def test_a_model_that_knows_no_spread_takes_the_mean(roles: AttributeRoles) -> None:
    labels = fill_labels(roles, pictures({"Male": 1.0}, {"Male": 1.0}), {"Young": 1.0})
    assert labels.plausible.counts == [1, 1]
    assert labels.spreads == [{}, {}] and labels.predicted[0] == {"Age": None}


def test_the_unsure_is_told_in_sentences() -> None:
    texts = describe_unsure(
        "a.png", Unsure(("Male", "Age"), 6, ("Young",)), {"Male": 0.27, "Age": None, "Young": 0.6}
    )
    assert texts == [
        "a.png: unsure of Male (1 with probability 0.27), Age; the answer is the mean over 6 plausible combinations",
        "a.png: unsure of Young (1 with probability 0.60); the likelier value is used",
    ]
    assert describe_unsure("a.png", Unsure(), {"Male": 0.99}) == []


@pytest.mark.parametrize(
    ("treats", "predicted", "told"),
    [
        ([{"Young": 0.0}], {"Young": 0.2}, True),
        ([{"Young": 0.0}, {"Young": 1.0}], {"Young": 0.2}, False),
        ([{"Young": 1.0}], {"Young": 0.2}, False),
        ([{"Young": 0.0}], {"Male": 0.9}, False),
        ([{"Young": 0.0, "Age": 30.0}], {"Young": 0.2, "Age": None}, False),
        ([], {"Young": 0.2}, False),
    ],
    ids=[
        "predicted to be so",
        "one changes it",
        "changed",
        "stated to be so",
        "another is changed",
        "nothing",
    ],
)
def test_who_asks_for_what_is_predicted_already_is_told(
    treats: list[dict[str, float]], predicted: dict[str, float | None], told: bool
) -> None:
    texts = describe_unchanged("a.jpg", treats, {"Young": 0.0, "Age": 40.0, "Male": 1.0}, predicted)
    if not told:
        assert texts == []
        return
    (text,) = texts
    assert text.startswith("a.jpg: Young is predicted to be 0 already") and text.endswith("--attr Young=…")
