"""Descendants follow the treatment: how far, and how far they should, on outputs made up to the digit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.descendants import DescendantTally
from civae_core.evaluation.measures import best_methods, measures_present
from civae_core.evaluation.seeds import summarise
from civae_core.evaluation.shifts import learned
from civae_core.model.distributions import standard_normal
from civae_core.yardstick import Reading

MALE, GRAY, BALD = (Attribute(name, "binary") for name in ("Male", "Gray_Hair", "Bald"))
MakeAsked = Callable[..., Asked]
COUNT = 40
SIGN_N = 1 - 2 * (torch.arange(COUNT) % 2).float()
"""+1 for who is made young, −1 for who is made old, in turn."""


class Judge:
    """Stands for a yardstick that learned two attributes."""

    attributes = (MALE, GRAY)

    def index(self, name: str) -> int:
        return [attribute.name for attribute in self.attributes].index(name)


JUDGE: Any = Judge()


def reading(gray_N: Tensor) -> Reading:
    outputs_BA = torch.stack([torch.full_like(gray_N, 9.0), gray_N], dim=1)
    return Reading(outputs_BA, outputs_BA, standard_normal(len(gray_N), 1, like=outputs_BA))


def entries(
    make_asked: MakeAsked, after_N: Tensor, truth_N: Tensor | None = None, unchanged: int = 0
) -> dict[str, Any]:
    """The scores where the scorer sees no grey hair in the inputs and as much as stated in answers and truths."""
    tally = DescendantTally(JUDGE, learned([GRAY, BALD], JUDGE))
    t_N1 = (SIGN_N[:, None] < 0).float()
    t_new_N1 = torch.where(torch.arange(COUNT)[:, None] < unchanged, t_N1, 1 - t_N1)
    for rows in torch.arange(COUNT).split(16):
        y_BCHW = torch.zeros(len(rows), 3, 16, 16)
        asked = make_asked(
            y_BCHW,
            rows_B=rows,
            t_BT=t_N1[rows],
            t_new_BT=t_new_N1[rows],
            seen=reading(torch.zeros(len(rows))),
            seen_truth=None if truth_N is None else reading(truth_N[rows]),
        )
        tally.add(asked, Answer(y_BCHW), Seen(reading(after_N[rows]), None, None))
    assert tally.per_image() == {}
    return tally.summary(0)


def test_how_far_a_descendant_moves_stands_beside_how_far_it_should(make_asked: MakeAsked) -> None:
    found = entries(make_asked, -0.5 * SIGN_N, -2.0 * SIGN_N)
    assert found == {
        "descendants": {
            "Gray_Hair": {
                "shift": {"mean": -0.5, "lo": -0.5, "hi": -0.5},
                "true_shift": {"mean": -2.0, "lo": -2.0, "hi": -2.0},
            }
        }
    }, "raising Young takes grey hair away; the scorer did not learn Bald"


def test_without_a_truth_nothing_says_how_far_is_right(make_asked: MakeAsked) -> None:
    assert set(entries(make_asked, -SIGN_N)["descendants"]["Gray_Hair"]) == {"shift"}


def test_images_whose_treatment_stays_take_no_part(make_asked: MakeAsked) -> None:
    found = entries(make_asked, -SIGN_N, -SIGN_N, unchanged=30)
    assert found["descendants"]["Gray_Hair"]["shift"]["mean"] == -1.0, "not 10/40 of it"
    assert entries(make_asked, -SIGN_N, unchanged=COUNT) == {}


def test_without_descendants_there_is_no_entry_and_without_a_scorer_no_tally(make_asked: MakeAsked) -> None:
    tally, y_BCHW = DescendantTally(JUDGE, []), torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match="scorer"):
        tally.add(make_asked(y_BCHW), Answer(y_BCHW), None)
    two = reading(torch.zeros(2))
    tally.add(make_asked(y_BCHW, seen=two), Answer(y_BCHW), Seen(two, None, None))
    assert tally.summary(0) == {}


def test_the_best_is_nearest_the_truth_and_without_it_nobody_is(make_asked: MakeAsked) -> None:
    methods = {
        name: entries(make_asked, shift * SIGN_N, -2.0 * SIGN_N)
        for name, shift in {"copy": 0.0, "little": -0.5, "right": -2.5, "much": -5.0, "truth": -2.0}.items()
    }
    (measure,) = measures_present(methods)
    assert measure.title == "shift of Gray_Hair, a descendant"
    assert best_methods(methods, measure) == {"right"}
    del methods["truth"]
    assert best_methods(methods, measure) == set()


def test_runs_with_several_seeds_are_summarised(make_asked: MakeAsked) -> None:
    found = summarise([entries(make_asked, shift * SIGN_N, -2.0 * SIGN_N) for shift in (-1.0, -3.0)])
    gray = found["descendants"]["Gray_Hair"]
    assert gray["shift"]["mean"] == gray["true_shift"]["mean"] == -2.0
    assert gray["shift"]["runs"] == [-1.0, -3.0]
