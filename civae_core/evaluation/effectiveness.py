"""Effectiveness: does the independent scorer see the intended change in the counterfactuals? (METHOD 6)"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.bootstrap import bootstrap_mean, share_interval
from civae_core.evaluation.kept import KeptRows
from civae_core.evaluation.shifts import learned
from civae_core.ranking import auc
from civae_core.yardstick import Yardstick


class EffectivenessTally:
    """Compares what the scorer sees of the treatments that a question changes with the values that were intended.

    The entries are `effectiveness` (τ = 1) and `effectiveness_mean_image` (τ = 0). Each maps a treatment to scores
    over the images in which that treatment changes (an image that already had the intended value proves nothing).
    For a binary treatment:

    - `accuracy`, with its interval: the share of counterfactuals in which the scorer sees the intended value (its
      logit is on that side of 0);
    - `f1`: harmonic mean of precision and recall for the value 1, seen against intended, and `auc`: the probability
      that a counterfactual meant to be 1 scores above one meant to be 0. Both are absent where only one value was
      intended.

    For a continuous treatment:

    - `mae`, with its interval: mean |seen − intended| in raw units, and `correlation` of the two, absent where either
      does not vary;
    - `mae_from_truth`, where the truth is known: mean |seen − seen in the truth|. A scorer that cannot tell 70 years
      from 80 finds the truth itself far from the intended value. That distance is the scorer's fault, whereas this
      one is the method's: the truth scores 0.

    Treatments that no image changes or that the scorer could not learn are absent, and so are doses of a binary
    treatment between 0 and 1, for which a two-class scorer has no right answer.
    """

    def __init__(self, yardstick: Yardstick, treatments: Sequence[Attribute]) -> None:
        """
        Args:
            treatments: the model's treatments, in the order of `Asked.t_new_BT`.
        """
        known = learned(treatments, yardstick)
        self._places = [place for place, attribute in enumerate(treatments) if attribute in known]
        self._columns = [yardstick.index(treatments[place].name) for place in self._places]
        # The scorer standardises by its own training data, which may differ from the model's.
        self._attributes = [yardstick.attributes[column] for column in self._columns]
        self._kept: dict[str, KeptRows] = {}

    def add(self, asked: Asked, answer: Answer, seen: Seen | None) -> None:
        """
        Raises:
            ValueError: there is no reading by a scorer.
        """
        if seen is None:
            raise ValueError("effectiveness needs a scorer")
        intended_BT = asked.t_new_BT[:, self._places]
        kept = {
            "intended": intended_BT,
            "changed": intended_BT != asked.t_BT[:, self._places],
            "seen": seen.with_noise.outputs_BA[:, self._columns],
        }
        if seen.mean is not None:
            kept["seen_mean"] = seen.mean.outputs_BA[:, self._columns]
        if asked.seen_truth is not None:
            kept["seen_truth"] = asked.seen_truth.outputs_BA[:, self._columns]
        for name, values_BT in kept.items():
            self._kept.setdefault(name, KeptRows()).add(values_BT)

    def per_image(self) -> dict[str, Tensor]:
        """`effective` [N]: 1 where the scorer sees as intended all binary treatments that the question changes, or 0.

        It is NaN where one of them is set to a dose between 0 and 1, for which there is no right answer, and
        meaningless for an image in which nothing changes.
        """
        judged = [
            place
            for place, attribute in enumerate(self._attributes)
            if attribute.kind == "binary" and bool(self._judged(place).any())
        ]
        if not judged:
            return {}
        right_NT = (self._all("seen") > 0) == (self._all("intended") > 0.5)
        effective_N = right_NT[:, judged].all(dim=1).double()
        for place in judged:
            effective_N[self._all("changed")[:, place] & ~self._judged(place)] = torch.nan
        return {"effective": effective_N}

    def summary(self, seed: int) -> dict[str, Any]:
        entries = {"effectiveness": self._scores("seen", seed)}
        if "seen_mean" in self._kept:
            entries["effectiveness_mean_image"] = self._scores("seen_mean", seed)
        return {key: entry for key, entry in entries.items() if entry}

    @property
    def _has_truth(self) -> bool:
        """Whether the scorer has read the truth of every image."""
        return len(self._kept.get("seen_truth", ())) == len(self._kept["seen"])

    def _all(self, name: str) -> Tensor:
        return self._kept[name].all

    def _judged(self, place: int) -> Tensor:
        """Bool [N]: images in which this treatment changes to a value that the scorer can confirm or deny."""
        changed_N, intended_N = self._all("changed")[:, place], self._all("intended")[:, place]
        if self._attributes[place].kind == "binary":
            return changed_N & ((intended_N <= 0) | (intended_N >= 1))
        return changed_N

    def _scores(self, name: str, seed: int) -> dict[str, Any]:
        seen_NT, intended_NT = self._all(name).double(), self._all("intended").double()
        scores: dict[str, Any] = {}
        for place, attribute in enumerate(self._attributes):
            judged_N = self._judged(place)
            if judged_N.any():
                seen_M, intended_M = seen_NT[judged_N, place], intended_NT[judged_N, place]
                if attribute.kind == "binary":
                    scores[attribute.name] = _binary(seen_M, intended_M)
                else:
                    truth_M = self._all("seen_truth").double()[judged_N, place] if self._has_truth else None
                    scores[attribute.name] = _continuous(seen_M, intended_M, truth_M, attribute, seed)
        return scores


def _binary(logit_M: Tensor, intended_M: Tensor) -> dict[str, Any]:
    meant_M, found_M = intended_M > 0.5, logit_M > 0
    entry: dict[str, Any] = {"accuracy": share_interval(meant_M == found_M).to_dict()}
    if meant_M.any() and not meant_M.all():
        hits = int((meant_M & found_M).sum())
        entry["f1"] = 2 * hits / (int(meant_M.sum()) + int(found_M.sum()))
        entry["auc"] = auc(logit_M, meant_M.double())
    return entry


def _continuous(
    value_M: Tensor, intended_M: Tensor, truth_M: Tensor | None, attribute: Attribute, seed: int
) -> dict[str, Any]:
    shift, scale = attribute.shift_and_scale
    raw_M = value_M * scale + shift
    entry: dict[str, Any] = {"mae": bootstrap_mean((raw_M - intended_M).abs(), seed=seed).to_dict()}
    if truth_M is not None:
        entry["mae_from_truth"] = bootstrap_mean(scale * (value_M - truth_M).abs(), seed=seed).to_dict()
    pair_2M = torch.stack([raw_M, intended_M])
    if len(raw_M) > 1 and float(pair_2M.std(dim=1).min()) > 0.0:
        entry["correlation"] = float(torch.corrcoef(pair_2M)[0, 1])
    return entry
