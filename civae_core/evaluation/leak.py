"""Leak: how far an intervention moves the scorer's view of attributes that it should leave alone.

`shifts.py` says what counts as a shift. Images in which no treatment changes are left out.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.bootstrap import bootstrap_mean, share_change_interval
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.shifts import Shifts, learned
from civae_core.ranking import auc
from civae_core.yardstick import Yardstick

READABLE_AUC = 0.7
"""AUC on the inputs that the scorer must reach to be able to read an attribute."""


def watched(roles: AttributeRoles, yardstick: Yardstick, do: Collection[str]) -> list[Attribute]:
    """Attributes that should stay as they are and that the scorer knows.

    These are covariates, held-out attributes and the treatments that the intervention leaves alone. Descendants may
    move: `DescendantTally` reports them.

    Args:
        do: names of the treatments that the question sets.
    """
    untouched = tuple(attribute for attribute in roles.treatments if attribute.name not in do)
    return learned(roles.covariates + roles.held_out + untouched, yardstick)


class LeakTally:
    """Shifts of the scorer's outputs for watched attributes: logits, or standard deviations if continuous.

    Entries, by attribute except for `worst_leak`:

    - `shift`: mean over images of ±(output(y') − output(y)), + where the treatment is raised, with its interval;
    - `leak`: where the truth is known (`leak_reference: truth`), the shift minus that of the true counterfactual,
      image by image. A scorer is never perfectly blind to the treatment, and what it sees in the truth is no leak.
      Otherwise (`leak_reference: input`), the shift itself. Returning the truth leaks exactly 0;
    - `leak_standardised`: the leak in standard deviations of the scorer's output over the inputs, so that attributes
      can be compared;
    - `worst_leak`: the largest of these in magnitude, with its attribute and interval, among the attributes that the
      scorer can read in the inputs (AUC of at least 0.7; for a continuous one, AUC for its upper half). The scores of
      the others hardly vary, so that next to nothing is many standard deviations. As the largest of several,
      `worst_leak` is never quite 0 for a model that is not exact. Its interval does not account for the choice, and
      so excludes 0 in more than one case of twenty: for six attributes without any leak, in about a quarter of cases;
    - `leak_auc`: AUC of the scorer's output on y' for the attribute's factual label, minus the AUC on the reference
      (y* or y, as for `leak`). Where an attribute is flipped or destroyed in everybody, the mean shift can be 0, but
      this is far below 0. Absent for continuous attributes and where a class is missing;
    - `leak_accuracy`: share of counterfactuals in which the scorer still sees the factual value (its logit is on
      that side of 0), minus that share among the references, with its interval, whose width is never 0.
      Absent for continuous attributes.

    `leak_mean_image` and `worst_leak_mean_image` are `leak` and `worst_leak` at τ = 0, in the same units.
    """

    def __init__(self, yardstick: Yardstick, attributes: Sequence[Attribute], labels_NA: Tensor) -> None:
        """
        Args:
            attributes: those to watch.
            labels_NA: their factual labels, one row for each row of the prepared data, NaN where missing.
        """
        self._labels_NA = labels_NA
        self._shifts = Shifts(yardstick, attributes)
        self._label = KeptRows()

    def add(self, asked: Asked, answer: Answer, seen: Seen | None) -> None:
        """
        Raises:
            ValueError: there is no reading by a scorer.
        """
        self._shifts.add(asked, seen)
        self._label.add(self._labels_NA[asked.rows_B.cpu()])

    def per_image(self) -> dict[str, Tensor]:
        """`leak.<attribute>` [N] in standard deviations, for those that can be the worst; 0 where nothing changes."""
        if not self._shifts.attributes:
            return {}
        leak_NA = self._leak("shift") / self._spread()
        return {
            f"leak.{self._shifts.attributes[column].name}": leak_NA[:, column] for column in self._readable()
        }

    def summary(self, seed: int) -> dict[str, Any]:
        changed_N = self._shifts.changed_N
        if not self._shifts.attributes or not changed_N.any():
            return {}
        leak_MA, spread_A, readable = self._leak("shift")[changed_N], self._spread(), self._readable()
        entries: dict[str, Any] = {
            "leak_reference": "truth" if self._shifts.know_truth else "input",
            "leak": self._shifts.means(leak_MA, seed),
            "shift": self._shifts.means(self._shifts["shift"][changed_N], seed),
            "leak_standardised": self._shifts.means(leak_MA / spread_A, seed),
            "leak_auc": self._auc_changes(changed_N),
            "leak_accuracy": self._accuracy_changes(changed_N),
            "worst_leak": self._worst(leak_MA / spread_A, readable, seed),
        }
        if "mean_shift" in self._shifts:
            mean_leak_MA = self._leak("mean_shift")[changed_N]
            entries["leak_mean_image"] = self._shifts.means(mean_leak_MA, seed)
            entries["worst_leak_mean_image"] = self._worst(mean_leak_MA / spread_A, readable, seed)
        return {key: entry for key, entry in entries.items() if entry}

    def _leak(self, name: str) -> Tensor:
        shift_NA = self._shifts[name]
        return shift_NA - self._shifts["true_shift"] if self._shifts.know_truth else shift_NA

    def _spread(self) -> Tensor:
        """Standard deviation [A] of the scorer's outputs over the inputs; 1 for an output that never varies."""
        spread_A = self._shifts["before"].std(dim=0, correction=0)
        return torch.where(spread_A > 0, spread_A, torch.ones_like(spread_A))

    def _worst(self, leak_MA: Tensor, readable: Sequence[int], seed: int) -> dict[str, Any]:
        if not readable:
            return {}
        column = max(readable, key=lambda column: float(leak_MA[:, column].mean().abs()))
        interval = bootstrap_mean(leak_MA[:, column], seed=seed).to_dict()
        return {"attribute": self._shifts.attributes[column].name, **interval}

    def _auc_changes(self, changed_N: Tensor) -> dict[str, float]:
        changes = {}
        for column, name in self._binary():
            after = self._auc("after", column, changed_N)
            before = self._auc(self._reference, column, changed_N)
            if after is not None and before is not None:
                changes[name] = after - before
        return changes

    def _accuracy_changes(self, changed_N: Tensor) -> dict[str, dict[str, float]]:
        changes = {}
        for column, name in self._binary():
            label_N = self._label.all[:, column]
            known_N = changed_N & label_N.isfinite()
            if known_N.any():
                meant_M = label_N[known_N] > 0.5
                after_M, before_M = (
                    ((self._shifts[source][known_N, column] > 0) == meant_M).double()
                    for source in ("after", self._reference)
                )
                changes[name] = share_change_interval(after_M - before_M).to_dict()
        return changes

    @property
    def _reference(self) -> str:
        return "truth" if self._shifts.know_truth else "before"

    def _binary(self) -> list[tuple[int, str]]:
        return [(column, a.name) for column, a in enumerate(self._shifts.attributes) if a.kind == "binary"]

    def _readable(self) -> list[int]:
        """Columns of the attributes that the scorer can read in the inputs."""
        everyone_N = torch.ones(len(self._label), dtype=torch.bool)
        found = {c: self._auc("before", c, everyone_N) for c in range(len(self._shifts.attributes))}
        return [column for column, value in found.items() if value is not None and value >= READABLE_AUC]

    def _auc(self, name: str, column: int, among_N: Tensor) -> float | None:
        """AUC of some images' outputs for their factual labels, or for the upper half of a continuous attribute."""
        label_N = self._label.all[:, column]
        known_N = among_N & label_N.isfinite()
        label_M = label_N[known_N]
        if not len(label_M):
            return None
        binary = self._shifts.attributes[column].kind == "binary"
        positive_M = label_M > (0.5 if binary else label_M.median())
        if not positive_M.any() or positive_M.all():
            return None
        return auc(self._shifts[name][known_N, column], positive_M.double())
