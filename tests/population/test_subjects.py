"""The subjects of a population answer: who is changed, for whom the truth is known, and in which groups."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.errors import DataError, UsageError
from civae_core.population.subjects import groups_by, subjects_of

YOUNG, MALE, AGE = (
    Attribute("Young", "binary"),
    Attribute("Male", "binary"),
    Attribute("Age", "continuous", low=18.0, high=80.0),
)
ROLES = AttributeRoles((YOUNG, AGE), (MALE, Attribute("Skin_Tone", "continuous")))
NAMES = ("Male", "Age", "Young")
ROWS = LabelledRows(
    torch.tensor([7, 3, 9, 5, 1]),
    torch.tensor([[0.0, 0.3], [1.0, 0.1], [0.0, 0.2], [1.0, 0.9], [1.0, 0.5]]),
    torch.tensor([[1.0, 30.0], [0.0, 70.0], [1.0, 25.0], [0.0, 60.0], [1.0, 40.0]]),
)


def truth(do: dict[str, Any], known: dict[int, tuple[float, float]]) -> Any:
    """Rows with Young and Age under an intervention."""
    table = [[0.0, age, young] for young, age in known.values()]
    return SimpleNamespace(do=do, rows=torch.tensor(list(known)), table_MA=torch.tensor(table))


def data_with(*truths: Any) -> PreparedData:
    attributes = [SimpleNamespace(name=name) for name in NAMES]
    return cast(PreparedData, SimpleNamespace(attributes=attributes, truth=truths))


def test_those_who_have_the_treatment_already_are_left_out() -> None:
    found = subjects_of(ROWS, {"Young": 0.0}, data_with(), ROLES)
    assert found.chosen.rows_N.tolist() == [7, 9, 1] and found.unmoved == 2
    assert found.t_new_NT.tolist() == [[0.0, 30.0], [0.0, 25.0], [0.0, 40.0]]
    assert (found.with_truth, found.parts) == (0, ((3, None),))
    with pytest.raises(DataError, match="changes none of the 2 images"):
        subjects_of(ROWS[1:4:2], {"Young": 0.0}, data_with(), ROLES)


def test_each_subject_has_the_truth_of_its_own_intervention() -> None:
    flips = truth({"Young": "flip"}, {9: (0.0, 25.0), 3: (1.0, 70.0), 7: (0.0, 30.0)})
    elsewhere = truth({"Young": 0.0, "Hat": 1.0}, {1: (0.0, 40.0)})
    other_age = truth({"Young": 0.0, "Age": 50.0}, {1: (0.0, 50.0)})
    data = data_with(other_age, elsewhere, flips)
    found = subjects_of(ROWS, {"Young": 0.0}, data, ROLES)
    assert found.chosen.rows_N.tolist() == [7, 9, 1], "those with a truth first"
    assert (found.with_truth, len(found)) == (2, 3)
    (start, known), (rest_start, rest) = found.questions()
    assert (start, rest_start) == (0, 2) and known.truth is not None and rest.truth is None
    assert known.truth.truth is flips and known.truth.places_N.tolist() == [2, 0]
    assert known.chosen.rows_N.tolist() == [7, 9] and rest.chosen.rows_N.tolist() == [1]
    joint = subjects_of(ROWS[4:], {"Young": 0.0, "Age": 50.0}, data, ROLES)
    assert joint.with_truth == 1 and joint.parts[0][1].truth is other_age  # type: ignore[union-attr]


def test_flips_are_not_mixed_with_other_treatments() -> None:
    with pytest.raises(UsageError, match=r"Young=flip, Age=50: .* needs a single treatment"):
        subjects_of(ROWS, {"Young": "flip", "Age": 50.0}, data_with(), ROLES)
    assert len(subjects_of(ROWS, {"Young": "flip"}, data_with(), ROLES)) == 5


def test_groups_are_both_values_or_both_sides_of_the_median() -> None:
    subjects = subjects_of(ROWS, {"Young": "flip"}, data_with(), ROLES)
    groups = groups_by(subjects, ROLES.covariates, ROLES)
    assert [(g.label, g.count) for g in groups] == [
        ("everyone", 5), ("Male = 0", 2), ("Male = 1", 3), ("Skin_Tone ≤ 0.3", 3), ("Skin_Tone > 0.3", 2)
    ]  # fmt: skip
    women = subjects_of(ROWS[:3:2], {"Young": "flip"}, data_with(), ROLES)
    assert [g.label for g in groups_by(women, [MALE], ROLES)] == ["everyone"]
