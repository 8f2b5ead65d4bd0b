"""Leak: signs, references, standardisation and the attribute that is named, on outputs made up to the digit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.leak import LeakTally, watched
from civae_core.model.distributions import standard_normal
from civae_core.yardstick import Reading

MALE, HAT, TONE = (
    Attribute("Male", "binary"),
    Attribute("Hat", "binary"),
    Attribute("Tone", "continuous", mean=0.5, std=0.1),
)
YOUNG, GRAY = Attribute("Young", "binary"), Attribute("Gray_Hair", "binary")
MakeAsked = Callable[..., Asked]
COUNT = 40


class Judge:
    """Stands for a yardstick that learned some attributes, in another order than the table's."""

    attributes = (TONE, YOUNG, HAT, MALE, GRAY)

    def index(self, name: str) -> int:
        return [attribute.name for attribute in self.attributes].index(name)


JUDGE: Any = Judge()


def reading(outputs_BA: Tensor) -> Reading:
    return Reading(outputs_BA, outputs_BA, standard_normal(len(outputs_BA), 1, like=outputs_BA))


def outputs(**columns: Tensor) -> Tensor:
    zeros_N = torch.zeros(COUNT)
    return torch.stack([columns.get(a.name, zeros_N) for a in Judge.attributes], dim=1)


def tallied(
    make_asked: MakeAsked,
    before_NA: Tensor,
    after_NA: Tensor,
    truth_NA: Tensor | None = None,
    mean_NA: Tensor | None = None,
    reconstruction_NA: Tensor | None = None,
    t_NT: Tensor | None = None,
    labels_NA: Tensor | None = None,
) -> LeakTally:
    """The young are made old and the old young, in turn, unless stated otherwise."""
    t_NT = (torch.arange(COUNT) % 2).float()[:, None] if t_NT is None else t_NT
    labels_NA = (
        torch.stack([torch.arange(COUNT) % 4 > 1] * 3, dim=1).float() if labels_NA is None else labels_NA
    )
    tally = LeakTally(JUDGE, [MALE, HAT, TONE], labels_NA)
    for rows in torch.arange(COUNT).split(16):
        y_BCHW = torch.zeros(len(rows), 3, 16, 16)
        asked = make_asked(
            y_BCHW,
            rows_B=rows,
            t_BT=t_NT[rows],
            seen=reading(before_NA[rows]),
            seen_truth=None if truth_NA is None else reading(truth_NA[rows]),
        )
        found = Seen(
            reading(after_NA[rows]),
            None if mean_NA is None else reading(mean_NA[rows]),
            None if reconstruction_NA is None else reading(reconstruction_NA[rows]),
        )
        tally.add(asked, Answer(y_BCHW), found)
    return tally


def noise(seed: int = 0) -> Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed))


def read_off(before_NA: Tensor) -> Tensor:
    """Labels of Male, Hat and Tone that the outputs tell without a mistake."""
    return torch.stack([before_NA[:, 3] > 0, before_NA[:, 2] > 0, 0.1 * before_NA[:, 0] + 3.0], dim=1).float()


SIGN_N = 1 - 2 * (torch.arange(COUNT) % 2).float()


def test_a_shift_is_that_of_raising_the_treatment(make_asked: MakeAsked) -> None:
    before_NA = outputs(Male=3 * noise())
    after_NA = before_NA - outputs(Male=0.8 * SIGN_N, Hat=torch.full((COUNT,), 5.0))
    entries = tallied(make_asked, before_NA, after_NA).summary(0)
    assert entries["shift"]["Male"]["mean"] == pytest.approx(-0.8, abs=1e-6)
    assert entries["leak"] == entries["shift"] and entries["leak_reference"] == "input"
    assert entries["shift"]["Hat"]["mean"] == pytest.approx(0.0), "as much up as down: no effect of raising"
    assert set(entries["leak"]) == {"Male", "Hat", "Tone"}


def test_what_the_truth_shifts_is_no_leak(make_asked: MakeAsked) -> None:
    before_NA = outputs(Male=3 * noise(), Hat=noise(1))
    truth_NA = before_NA + outputs(Male=-0.5 * SIGN_N + 0.3 * noise(2))
    entries = tallied(make_asked, before_NA, truth_NA, truth_NA).summary(0)
    for entry in (*entries["leak"].values(), *entries["leak_standardised"].values()):
        assert entry == {"mean": 0.0, "lo": 0.0, "hi": 0.0}
    assert entries["leak_reference"] == "truth" and entries["shift"]["Male"]["mean"] != 0.0
    beyond = tallied(make_asked, before_NA, truth_NA + outputs(Male=0.2 * SIGN_N), truth_NA).summary(0)
    male = beyond["leak"]["Male"]
    assert [male[key] for key in ("mean", "lo", "hi")] == pytest.approx([0.2] * 3, abs=1e-6), (
        "paired, so exact"
    )


def test_the_worst_is_judged_in_standard_deviations(make_asked: MakeAsked) -> None:
    before_NA = outputs(Male=20 * noise(), Hat=0.5 * noise(1), Tone=noise(2))
    after_NA = before_NA + outputs(Male=2.0 * SIGN_N, Hat=-0.4 * SIGN_N, Tone=0.1 * SIGN_N)
    tally = tallied(make_asked, before_NA, after_NA, labels_NA=read_off(before_NA))
    entries = tally.summary(0)
    spread = float(before_NA[:, 2].std(correction=0))
    assert entries["worst_leak"]["attribute"] == "Hat", "a small shift of a score that hardly varies"
    assert entries["worst_leak"]["mean"] == pytest.approx(-0.4 / spread, rel=1e-5)
    assert entries["leak_standardised"]["Hat"]["mean"] == entries["worst_leak"]["mean"]
    assert set(tally.per_image()) == {"leak.Male", "leak.Hat", "leak.Tone"}
    assert tally.per_image()["leak.Hat"].mean() == pytest.approx(entries["worst_leak"]["mean"])


def test_what_the_scorer_cannot_tell_is_reported_but_never_the_worst(make_asked: MakeAsked) -> None:
    """The score of such an attribute hardly varies, so that any shift is many standard deviations."""
    before_NA = outputs(Male=noise(), Hat=0.01 * noise(1), Tone=0.01 * noise(2))
    after_NA = before_NA + outputs(Male=0.2 * SIGN_N, Hat=0.1 * SIGN_N, Tone=0.1 * SIGN_N)
    labels_NA = read_off(before_NA)
    labels_NA[:, 1] = (torch.arange(COUNT) % 4 > 1).float()
    labels_NA[:, 2] = noise(5)
    tally = tallied(make_asked, before_NA, after_NA, labels_NA=labels_NA)
    entries = tally.summary(0)
    assert (
        entries["leak_standardised"]["Hat"]["mean"] > 5 and entries["leak_standardised"]["Tone"]["mean"] > 5
    )
    assert entries["worst_leak"]["attribute"] == "Male" and set(tally.per_image()) == {"leak.Male"}
    none = tallied(make_asked, before_NA, after_NA, labels_NA=torch.full((COUNT, 3), torch.nan))
    assert "worst_leak" not in none.summary(0) and none.per_image() == {}
    assert set(none.summary(0)["leak"]) == {"Male", "Hat", "Tone"}


def test_what_the_scorer_tells_fairly_well_can_be_the_worst(make_asked: MakeAsked) -> None:
    """It ranks 15 of 20 men above all women (AUC .75), and 13 of 20 people with a hat above all without one (.65)."""
    is_so_N = (torch.arange(COUNT) % 4 > 1).float()

    def output(told: int) -> Tensor:
        is_told_N = (is_so_N > 0) & (is_so_N.cumsum(0) <= told)
        return torch.where(is_told_N, 1.0, -is_so_N) + 0.01 * noise()

    before_NA = outputs(Male=output(15), Hat=output(13))
    after_NA = before_NA + outputs(Male=0.1 * SIGN_N, Hat=0.5 * SIGN_N)
    tally = tallied(make_asked, before_NA, after_NA, labels_NA=torch.stack([is_so_N] * 3, dim=1))
    assert tally.summary(0)["worst_leak"]["attribute"] == "Male" and set(tally.per_image()) == {"leak.Male"}


def test_a_continuous_attribute_is_told_if_its_upper_half_is(make_asked: MakeAsked) -> None:
    """Half have a tone of 1 and half of 2, but for one of 1000: above the mean, there is only that one."""
    high_N = (torch.arange(COUNT) % 4 > 1).float()
    tone_N = 1 + high_N
    tone_N[-1] = 1000.0
    told_N = high_N + 0.01 * noise()
    told_N[-1] = -1.0
    before_NA = outputs(Tone=told_N)
    labels_NA = torch.stack([torch.zeros(COUNT)] * 2 + [tone_N], dim=1)
    tally = tallied(make_asked, before_NA, before_NA, labels_NA=labels_NA)
    assert set(tally.per_image()) == {"leak.Tone"}


def test_the_mean_image_is_held_against_the_reconstruction(make_asked: MakeAsked) -> None:
    before_NA = outputs(Male=noise(), Hat=noise(1))
    blurred_NA = before_NA - outputs(
        Male=4.0 + 2.0 * SIGN_N, Hat=3.0 * SIGN_N
    )  # blur takes the young for women
    mean_NA = blurred_NA + outputs(Hat=0.7 * SIGN_N)
    labels_NA = read_off(before_NA)
    tally = tallied(make_asked, before_NA, before_NA, None, mean_NA, blurred_NA, labels_NA=labels_NA)
    entries = tally.summary(0)
    assert entries["leak_mean_image"]["Hat"]["mean"] == pytest.approx(0.7, abs=1e-6)
    assert entries["leak_mean_image"]["Male"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert entries["worst_leak_mean_image"]["attribute"] == "Hat"
    assert entries["worst_leak"]["mean"] == 0.0
    assert "leak_mean_image" not in tallied(make_asked, before_NA, before_NA).summary(0)


def test_the_change_of_auc_agrees_with_sklearn(make_asked: MakeAsked) -> None:
    label_N = (torch.arange(COUNT) % 4 > 1).float()
    before_NA = outputs(Male=2 * label_N + noise())
    after_NA = outputs(Male=label_N + noise(3))
    labels_NA = torch.stack([label_N, torch.zeros(COUNT), noise()], dim=1)
    labels_NA[:3, 0] = torch.nan
    change = tallied(make_asked, before_NA, after_NA, labels_NA=labels_NA).summary(0)["leak_auc"]
    expected = [roc_auc_score(label_N[3:], values_NA[3:, 3]) for values_NA in (after_NA, before_NA)]
    assert change == {"Male": pytest.approx(expected[0] - expected[1])}, "one class of Hat; Tone has no AUC"


def test_the_auc_is_held_against_the_truth_where_it_is_known(make_asked: MakeAsked) -> None:
    """The AUC also shows what a mean shift cannot: an attribute flipped in everybody."""
    label_N = (torch.arange(COUNT) % 4 > 1).float()
    before_NA = outputs(Male=2 * label_N - 1 + noise())
    truth_NA = outputs(Male=label_N + noise(3))
    exact = tallied(make_asked, before_NA, truth_NA, truth_NA).summary(0)
    assert exact["leak_auc"]["Male"] == 0.0
    flipped = tallied(make_asked, outputs(Male=2 * label_N - 1), outputs(Male=1 - 2 * label_N)).summary(0)
    assert flipped["shift"]["Male"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert flipped["leak_auc"]["Male"] == -1.0


def test_the_share_still_seen_right_counts_single_images(make_asked: MakeAsked) -> None:
    """Half of one class is pushed over the threshold; an AUC, which ranks images, cannot say how many."""
    label_N = (torch.arange(COUNT) % 2).float()
    right_N = 2 * label_N - 1
    pushed_N = torch.where(torch.arange(COUNT) % 4 == 1, -right_N, right_N)
    labels_NA = torch.stack([label_N, torch.zeros(COUNT), noise()], dim=1)
    bare_N = torch.full((COUNT,), -1.0)
    before_NA, after_NA = (outputs(Male=male_N, Hat=bare_N) for male_N in (right_N, pushed_N))
    change = tallied(make_asked, before_NA, after_NA, labels_NA=labels_NA).summary(0)["leak_accuracy"]
    assert {name: entry["mean"] for name, entry in change.items()} == {"Male": -0.25, "Hat": 0.0}
    assert change["Hat"]["lo"] < 0.0 < change["Hat"]["hi"], "of 40 images that stay, others may not"
    assert change["Male"]["lo"] < -0.25 < change["Male"]["hi"]
    to_all_NA = outputs(Male=-right_N)
    held = tallied(make_asked, before_NA, after_NA, to_all_NA, labels_NA=labels_NA).summary(0)
    assert held["leak_accuracy"]["Male"]["mean"] == 0.75, "the truth is what it is held against"


def test_images_whose_treatment_stays_take_no_part(make_asked: MakeAsked) -> None:
    t_NT = torch.full((COUNT, 1), 0.5)  # t' = 1 − t is the same
    before_NA = outputs(Male=noise())
    unchanged = tallied(make_asked, before_NA, before_NA + 1, t_NT=t_NT, labels_NA=read_off(before_NA))
    assert unchanged.summary(0) == {}
    assert unchanged.per_image()["leak.Male"].abs().max() == 0.0
    t_NT[:10] = 0.0
    some = tallied(make_asked, before_NA, before_NA + 1, t_NT=t_NT).summary(0)
    assert some["shift"]["Male"]["mean"] == pytest.approx(1.0, abs=1e-6), "not 10/40 of it"
    assert some["leak"] == some["shift"]
    label_N = (torch.arange(COUNT) % 4 > 1).float()
    destroyed_NA = torch.cat([outputs(Male=label_N)[:10], outputs()[10:]])
    auc = tallied(make_asked, outputs(Male=label_N), destroyed_NA, t_NT=t_NT).summary(0)["leak_auc"]
    assert auc["Male"] == 0.0, "destroyed only where nothing was asked"


def test_a_step_of_the_first_treatment_that_changes_gives_the_sign(make_asked: MakeAsked) -> None:
    t_NT = torch.tensor([[1.0, 0.0], [0.5, 1.0]]).repeat(
        COUNT // 2, 1
    )  # first lowered; or second lowered alone
    before_NA = outputs(Male=noise())
    entries = tallied(make_asked, before_NA, before_NA + 1, t_NT=t_NT).summary(0)
    assert entries["shift"]["Male"]["mean"] == pytest.approx(-1.0, abs=1e-6)


def test_consequences_and_what_was_not_learned_or_as_another_kind_are_not_watched() -> None:
    hats = Attribute("Hat", "continuous")
    roles = AttributeRoles((YOUNG,), (MALE, Attribute("Bald", "binary")), (GRAY,), (TONE, hats))
    assert watched(roles, JUDGE, ["Young"]) == [MALE, TONE]
    two = AttributeRoles((YOUNG, HAT), (MALE,), (GRAY,), (TONE,))
    assert watched(two, JUDGE, {"Young": "flip"}) == [MALE, TONE, HAT], (
        "a treatment left alone should stay too"
    )
    assert watched(two, JUDGE, {"Young": "flip", "Hat": 1.0}) == [MALE, TONE]


def test_without_attributes_there_is_no_entry_and_without_a_scorer_no_tally(make_asked: MakeAsked) -> None:
    empty = LeakTally(JUDGE, [], torch.zeros(COUNT, 0))
    y_BCHW = torch.zeros(2, 3, 16, 16)
    two = reading(torch.zeros(2, 5))
    empty.add(make_asked(y_BCHW, seen=two), Answer(y_BCHW), Seen(two, None, None))
    assert empty.summary(0) == {} and empty.per_image() == {}
    with pytest.raises(ValueError, match="scorer"):
        empty.add(make_asked(y_BCHW), Answer(y_BCHW), None)
