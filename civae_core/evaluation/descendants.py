"""Descendants of the treatment, such as grey hair: how far they follow it, which is no leak."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.shifts import Shifts
from civae_core.yardstick import Yardstick


class DescendantTally:
    """Shifts of the scorer's outputs for attributes that the treatment may change (METHOD 1).

    The entry `descendants` has, by attribute:

    - `shift`: mean over images of ±(output(y') − output(y)), + where the treatment is raised, with its interval;
    - `true_shift`: the same for the true counterfactual, where it is known. A model that leaves the attribute behind
      shifts it less. Without a truth, nothing says how far is right.

    Images in which no treatment changes are left out. The scorer may read a descendant badly, or partly off the
    treatment; `scorer` in the evaluation says how well it does on photographs.
    """

    def __init__(self, yardstick: Yardstick, descendants: Sequence[Attribute]) -> None:
        """
        Args:
            descendants: those that the scorer knows.
        """
        self._shifts = Shifts(yardstick, descendants)

    def add(self, asked: Asked, answer: Answer, seen: Seen | None) -> None:
        """
        Raises:
            ValueError: there is no reading by a scorer.
        """
        self._shifts.add(asked, seen)

    def per_image(self) -> dict[str, Tensor]:
        return {}

    def summary(self, seed: int) -> dict[str, Any]:
        changed_N = self._shifts.changed_N
        if not self._shifts.attributes or not changed_N.any():
            return {}
        names = ("shift", "true_shift") if self._shifts.know_truth else ("shift",)
        found = {name: self._shifts.means(self._shifts[name][changed_N], seed) for name in names}
        return {
            "descendants": {
                attribute.name: {name: means[attribute.name] for name, means in found.items()}
                for attribute in self._shifts.attributes
            }
        }
