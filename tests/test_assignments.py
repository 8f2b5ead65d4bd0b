"""`--treat` and `--attr` as typed: joint interventions, sweeps, flips, and what is refused."""

import numpy as np
import pytest

from civae_core.assignments import (
    LARGEST_VALUE,
    do_text,
    interventions_on,
    parse_assignment,
    parse_treatments,
    parse_values,
)
from civae_core.attributes import Attribute, AttributeRoles, answered_beyond, cautions, with_care
from civae_core.errors import UsageError

NAMES = ["Young", "Male", "Age"]


def test_different_attributes_are_one_joint_intervention() -> None:
    assert parse_treatments(["Young=0", "Male=flip"], NAMES) == [{"Young": 0.0, "Male": "flip"}]


def test_repeats_and_sweeps_are_alternatives_and_attributes_cross() -> None:
    found = parse_treatments(["Young=0", "Age=-1:3:3", "Young=1", "Young=0"], NAMES)
    assert found == [
        {"Young": 0.0, "Age": -1.0},
        {"Young": 0.0, "Age": 1.0},
        {"Young": 0.0, "Age": 3.0},
        {"Young": 1.0, "Age": -1.0},
        {"Young": 1.0, "Age": 1.0},
        {"Young": 1.0, "Age": 3.0},
    ]


def test_a_sweep_includes_both_ends_exactly_and_may_fall() -> None:
    values = parse_assignment("Young=0.1:0.7:7").values
    assert values[0] == 0.1
    assert values[-1] == 0.7
    assert len(values) == 7
    assert parse_assignment("Young=1:0:3").values == (1.0, 0.5, 0.0)


def test_no_treatments_are_no_interventions() -> None:
    assert parse_treatments([], NAMES) == []


def test_spaces_and_exponents_are_understood() -> None:
    assert parse_values([" Age = 1e-1 ", "Male=-0"], NAMES) == {"Age": 0.1, "Male": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Yuong=0", "--treat Yuong=0: unknown attribute 'Yuong' (did you mean Young?)"),
        ("young=0", "--treat young=0: unknown attribute 'young' (did you mean Young?)"),
        ("Young", "--treat Young: needs the form NAME=VALUE"),
        ("=1", "--treat =1: needs the form NAME=VALUE"),
        ("Young=", "--treat Young=: '' is not a number"),
        ("Young=old", "--treat Young=old: 'old' is not a number"),
        ("Young=nan", "--treat Young=nan: 'nan' is not a finite number"),
        ("Young=-inf", "--treat Young=-inf: '-inf' is not a finite number"),
        ("Young=0:1", "--treat Young=0:1: a sweep needs the form LOW:HIGH:COUNT"),
        ("Young=0:1:x", "--treat Young=0:1:x: the count 'x' of the sweep is not a whole number"),
        ("Young=0:1:1", "--treat Young=0:1:1: a sweep takes 2 to 1000 steps, not 1"),
        ("Young=0:1:1001", "--treat Young=0:1:1001: a sweep takes 2 to 1000 steps, not 1001"),
        ("Young=0:inf:3", "--treat Young=0:inf:3: 'inf' is not a finite number"),
        ("Young=1e39", "--treat Young=1e39: '1e39' is beyond 3.4e+38, the largest number that a model takes"),
        (
            "Young=0:-1e308:3",
            "--treat Young=0:-1e308:3: '-1e308' is beyond 3.4e+38, the largest number that a model takes",
        ),
        ("Age=flip", "--treat Age=flip: Age is continuous, so it has no other value to flip to"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_treatments([text], NAMES, continuous=["Age"])
    assert caught.value.message == message
    assert caught.value.exit_code == 2


def test_a_misspelt_flip_is_recognised() -> None:
    with pytest.raises(UsageError) as caught:
        parse_treatments(["Young=flpi"], NAMES)
    assert caught.value.hint == "did you mean flip?"


def test_too_many_interventions_in_all() -> None:
    with pytest.raises(UsageError, match="stands for 1,600 interventions, at most 1,000"):
        parse_treatments(["Young=0:1:40", "Age=0:1:40"], NAMES)


@pytest.mark.parametrize("texts", [["Male=flip"], ["Male=0:1:3"], ["Male=1", "Male=1"]])
def test_factual_values_are_single_numbers_given_once(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--attr Male"):
        parse_values(texts, NAMES)


def test_the_bound_is_what_the_model_s_numbers_hold() -> None:
    assert np.finfo(np.float32).max == LARGEST_VALUE
    assert parse_assignment(f"Young=-{LARGEST_VALUE!r}").values == (-LARGEST_VALUE,)
    widest = parse_assignment(f"Young=-{LARGEST_VALUE!r}:{LARGEST_VALUE!r}:3").values
    assert widest == (-LARGEST_VALUE, 0.0, LARGEST_VALUE)
    for text in ("Age=1e39", "Age=-4e38"):
        with pytest.raises(UsageError, match=r"--attr Age=.* is beyond"):
            parse_values([text], NAMES)


def test_a_models_treatments_say_what_may_be_asked_of_it() -> None:
    young, age = Attribute("Young", "binary"), Attribute("Age", "continuous", low=18, high=85)
    assert interventions_on(["Young=flip", "Age=30"], [young, age]) == [{"Young": "flip", "Age": 30.0}]
    with pytest.raises(UsageError, match="Age is continuous, so it has no other value to flip to"):
        interventions_on(["Age=flip"], [young, age])
    for nothing in (None, []):
        with pytest.raises(UsageError, match="--treat is missing") as caught:
            interventions_on(nothing, [age, young])
        assert caught.value.hint == "for example --treat Age=flip"


def test_only_a_continuous_treatment_is_said_to_be_held_at_its_edge() -> None:
    young, age = Attribute("Young", "binary"), Attribute("Age", "continuous", low=18, high=85)
    assert with_care(["Young"], [young, age]) == "interpret with care"
    held = "Age is answered as at the nearest dose seen in training; interpret with care"
    assert with_care(["Young", "Age"], [young, age]) == held
    roles = AttributeRoles((young, age), (Attribute("Skin", "continuous"),))
    assert cautions({"Young": 1.0, "Age": 90.0, "Skin": 2.0}, roles) == [
        f"Age=90 (training saw 18 to 85); {held}",
        "Skin=2 (training saw 0 to 1); interpret with care",
    ], "a covariate is not held"


def test_a_caption_says_how_values_beyond_training_are_answered() -> None:
    young, age = Attribute("Young", "binary"), Attribute("Age", "continuous", low=18, high=85)
    assert answered_beyond(["Young"], [young, age]) == "extrapolation"
    assert answered_beyond(["Age"], [young, age]) == "as at the nearest dose"
    both = "Young: extrapolation; Age: as at the nearest dose"
    assert answered_beyond(["Age", "Young"], [young, age]) == both


def test_interventions_in_words() -> None:
    assert do_text({"Young": "flip", "Age": 70.0, "Dose": 0.25, "Skin": "as listed"}) == (
        "Young=flip, Age=70, Dose=0.25, Skin=as listed"
    )
    assert do_text({"Young": "flip", "Age": 0.12345678}, ",") == "Young=flip,Age=0.123457"
    assert do_text({"Age": 0.12345678}, digits=10) == "Age=0.12345678"
