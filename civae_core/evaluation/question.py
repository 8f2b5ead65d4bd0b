"""The questions of an evaluation: interventions, with the true answers where the data knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.assignments import Intervention, Value, do_text
from civae_core.attributes import Attribute, AttributeRoles
from civae_core.counterfactual import act
from civae_core.data import PreparedData, Truth
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows, labelled_splits
from civae_core.data.splits import Split
from civae_core.errors import DataError
from civae_core.evaluation.asked import Asked
from civae_core.yardstick import Yardstick


@dataclass(frozen=True)
class KnownTruth:
    """True counterfactuals of the chosen rows."""

    truth: Truth
    places_N: Tensor
    """Index of each chosen row in `truth`."""

    def images(self, items: Tensor | slice) -> Tensor:
        """True counterfactuals of some of the chosen rows, floats in [0,1] [n,C,S,S]."""
        return self.truth.images(self.places_N[items]).float() / 255


@dataclass(frozen=True)
class Question:
    """One intervention on rows of a split."""

    chosen: LabelledRows
    """The subjects asked about: those whose treatment the intervention changes."""
    t_new_NT: Tensor
    do: Mapping[str, float | str]
    """By treatment: a value, `flip`, or a description where values differ between images."""
    truth: KnownTruth | None
    among: LabelledRows | None = None
    """Rows of the split, whether the intervention changes them or not; None if they are those asked about."""

    @property
    def everyone(self) -> LabelledRows:
        """Subjects whose photographs answers are compared with, and on whom a model is scored beyond its answers.

        All subjects asked about may have the same treatment, but scores that contrast its values need others, too.
        """
        return self.chosen if self.among is None else self.among

    def subset(self, count: int) -> "Question":
        """The same question about at most `count` of its subjects, evenly spread; `everyone` stays the same."""
        items = evenly_spread(len(self.chosen), count)
        truth = None if self.truth is None else KnownTruth(self.truth.truth, self.truth.places_N[items])
        return Question(self.chosen[items], self.t_new_NT[items], self.do, truth, self.everyone)

    def batch(
        self,
        data: PreparedData,
        items: Tensor | slice,
        device: torch.device,
        yardstick: Yardstick | None = None,
    ) -> Asked:
        """Some of the rows in the form in which methods are asked about them, with the yardstick's readings."""
        chosen = self.chosen[items]
        y_BCHW, x_BX, t_BT = chosen.read(data, device)
        t_new_BT = self.t_new_NT[items].to(device)
        truth_BCHW = None if self.truth is None else self.truth.images(items).to(device)
        return Asked(
            rows_B=chosen.rows_N,
            y_BCHW=y_BCHW,
            x_BX=x_BX,
            t_BT=t_BT,
            t_new_BT=t_new_BT,
            direction_B=direction(t_BT, t_new_BT),
            truth_BCHW=truth_BCHW,
            seen=None if yardstick is None else yardstick.read(y_BCHW),
            seen_truth=None if yardstick is None or truth_BCHW is None else yardstick.read(truth_BCHW),
        )


def ask_split(
    data: PreparedData, roles: AttributeRoles, split: Split, limit: int | None = None
) -> list[Question]:
    """`ask` about the rows of a split that are labelled; log how many were left out.

    Raises:
        DataError: no row of the split is labelled, or as in `ask`.
    """
    try:
        chosen = labelled_rows(data, roles, split)
    except DataError as error:
        raise DataError(error.message, hint=_other_split(data, roles) or error.hint) from error
    return ask(data, roles, chosen, limit)


def _other_split(data: PreparedData, roles: AttributeRoles) -> str | None:
    """A hint at a split that can be scored; None if there is none."""
    known = labelled_splits(data, roles)
    held_out = next((split for split in ("test", "valid") if split in known), None)
    if held_out:
        return f"score another split, with --split {held_out}"
    if known:
        return "--split train scores images that models learn from; better prepare the data with a test split"
    return None


def ask(
    data: PreparedData, roles: AttributeRoles, chosen: LabelledRows, limit: int | None = None
) -> list[Question]:
    """Each intervention whose truth the data knows, then each treatment that none of these sets, without a truth.

    The former are those on the treatments alone, in the data's order, on the rows that have the truth. The latter
    set one treatment in turn, in the order of the roles, to each of `values_to_ask`. Only subjects whose treatment
    changes are asked about, and an intervention that changes nobody's is not asked.

    Args:
        chosen: labelled rows of a split.
        limit: ask about at most this many of them, evenly spread.

    Raises:
        DataError: no possible intervention changes anybody's treatment.
    """
    names = {a.name for a in roles.treatments}
    columns = [[a.name for a in data.attributes].index(a.name) for a in roles.treatments]
    found = []
    for truth in data.truth:
        if set(truth.do) <= names:
            places_N = find_rows(truth.rows, chosen.rows_N)
            kept_N = places_N >= 0
            known = KnownTruth(truth, places_N[kept_N])
            t_new_NT = truth.table_MA[known.places_N][:, columns]
            found.append(about_changed(chosen[kept_N], t_new_NT, truth.do, known, limit))
    covered = {name for question in found if question is not None for name in question.do}
    others: list[Intervention] = [
        {a.name: value} for a in roles.treatments if a.name not in covered for value in values_to_ask(a, data)
    ]
    for do in others:
        t_new_NT = act(chosen.t_NT, do, roles.treatments)
        found.append(about_changed(chosen, t_new_NT, do, None, limit))
    questions = [question for question in found if question is not None]
    if not questions:
        tried = " or ".join(f"do({do_text(do)})" for do in others)
        raise DataError(
            f"{data.path}: {tried} changes none of the {len(chosen):,} images, which all have it already",
            hint="prepare data whose subjects differ in their treatment",
        )
    return questions


def values_to_ask(treatment: Attribute, data: PreparedData) -> list[Value]:
    """Values of a treatment to ask about where no truth says which: `flip`, or a high and a low dose.

    The doses are training labels, at the 90 % and the 10 % quantile, since the largest and the smallest may be
    single outliers, near which a model has learned nothing. These ends of the range seen in training are asked about
    only if the quantiles coincide, or if no label is known.
    """
    if treatment.kind == "binary":
        return ["flip"]
    labels_N = data.column(treatment.name)[data.rows("train")]
    known_M = labels_N[~labels_N.isnan()].sort().values
    doses = [treatment.high, treatment.low]
    if len(known_M):
        high, low = (float(known_M[round(share * (len(known_M) - 1))]) for share in (0.9, 0.1))
        if high > low:
            doses = [high, low]
    # Other data than the model's may have doses that the model has never seen.
    return list(dict.fromkeys(min(max(dose, treatment.low), treatment.high) for dose in doses))


def about_changed(
    rows: LabelledRows,
    t_new_NT: Tensor,
    do: Mapping[str, float | str],
    truth: KnownTruth | None,
    limit: int | None = None,
) -> Question | None:
    """The question about the rows whose treatment changes; None if nobody's does.

    A model returns the photographs of the others exactly (τ = 1), however bad it is.

    Args:
        t_new_NT: intended treatments of all rows.
        truth: true counterfactuals of all rows.
        limit: ask about at most this many, evenly spread.
    """
    changed_M = (t_new_NT != rows.t_NT).any(dim=1).nonzero()[:, 0]
    if not len(changed_M):
        return None
    asked_M = changed_M[evenly_spread(len(changed_M), limit or len(changed_M))]
    known = None if truth is None else KnownTruth(truth.truth, truth.places_N[asked_M])
    everyone = rows[evenly_spread(len(rows), limit or len(rows))]
    return Question(rows[asked_M], t_new_NT[asked_M], do, known, everyone)


def by_known_truth(
    data: PreparedData, names: Sequence[str], rows_N: Tensor, t_new_NT: Tensor
) -> list[tuple[Tensor, KnownTruth | None]]:
    """Group images with any intended treatments by the intervention whose truth answers them; those without one last.

    Args:
        names: the treatments.
        rows_N: rows of the data; a row may occur several times.
        t_new_NT: their intended treatments.

    Returns:
        For each intervention that answers any images: which ones, bool [N], and the truth; most images first.
    """
    columns = [[a.name for a in data.attributes].index(name) for name in names]
    left_N = torch.ones_like(rows_N, dtype=torch.bool)
    found: list[tuple[Tensor, KnownTruth | None]] = []
    for truth in data.truth:
        places_N = find_rows(truth.rows, rows_N)
        known_NT = truth.table_MA[places_N.clamp(min=0)][:, columns]
        # A person who typed 0.3, or another program, may have rounded it differently.
        agrees_N = torch.isclose(known_NT, t_new_NT, rtol=1e-5, atol=1e-7).all(dim=1)
        kept_N = left_N & agrees_N & (places_N >= 0)
        # A truth with further interventions has other attributes changed as well.
        if set(truth.do) <= set(names) and kept_N.any():
            found.append((kept_N, KnownTruth(truth, places_N[kept_N])))
            left_N = left_N & ~kept_N
    found.sort(key=lambda entry: -int(entry[0].sum()))
    return [*found, (left_N, None)] if left_N.any() else found


def direction(t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
    """+1 or −1 [B], as the first treatment that changes rises or falls; 0 where none changes."""
    step_BT = (t_new_BT - t_BT).sign()
    first_B1 = (step_BT != 0).int().argmax(dim=1, keepdim=True)
    return step_BT.gather(1, first_B1)[:, 0]


def find_rows(rows_M: Tensor, wanted_N: Tensor) -> Tensor:
    """Index of each wanted row number in `rows_M`, which may be in any order: int64 [N], −1 where it is absent."""
    if not len(rows_M):
        return torch.full_like(wanted_N, -1)
    sorted_M, order_M = rows_M.sort()
    places_N = torch.searchsorted(sorted_M, wanted_N).clamp(max=len(rows_M) - 1)
    return torch.where(sorted_M[places_N] == wanted_N, order_M[places_N], -1)
