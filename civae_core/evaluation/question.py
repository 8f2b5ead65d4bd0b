"""What a model is asked in an evaluation: interventions, with the true answers where the data knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.assignments import Intervention, do_text
from civae_core.attributes import AttributeRoles
from civae_core.counterfactual import act
from civae_core.data import PreparedData, Truth
from civae_core.data.labelled import LabelledRows, evenly_spread
from civae_core.errors import DataError
from civae_core.evaluation.asked import Asked
from civae_core.yardstick import Yardstick


@dataclass(frozen=True)
class KnownTruth:
    """True counterfactuals of the chosen rows."""

    truth: Truth
    places_N: Tensor
    """Where each chosen row stands in `truth`."""

    def images(self, items: Tensor | slice) -> Tensor:
        """Floats in [0,1] [n,C,S,S] of some of the chosen rows."""
        return self.truth.images(self.places_N[items]).float() / 255


@dataclass(frozen=True)
class Question:
    """One intervention on rows of a split."""

    chosen: LabelledRows
    """Who is asked about: those whose treatment it changes."""
    t_new_NT: Tensor
    do: Mapping[str, float | str]
    """Values by treatment, `flip`, or in words where they differ from image to image."""
    truth: KnownTruth | None
    among: LabelledRows | None = None
    """Rows of the split whether it changes them or not; None: those asked about."""

    @property
    def everyone(self) -> LabelledRows:
        """Whose photographs answers are compared with, and a model is tried on beside its answers.

        Who is asked about may all have had one treatment, and what tells its values apart needs others too.
        """
        return self.chosen if self.among is None else self.among

    def subset(self, count: int) -> "Question":
        """The question about at most `count` of those asked about, evenly spread; `everyone` stays who they are."""
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
        """Some of the rows as methods are asked about them, with what the yardstick sees in them."""
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


def ask(
    data: PreparedData, roles: AttributeRoles, chosen: LabelledRows, limit: int | None = None
) -> list[Question]:
    """Each intervention on the treatments whose truth the data knows, on the rows that have it, in the data's order.

    Where it knows none, the first treatment flipped (a continuous one: set to its largest value in training). Only
    those are asked about whose treatment changes, and what changes nobody's is not asked.

    Args:
        chosen: labelled rows of a split.
        limit: ask about at most this many of them, evenly spread.

    Raises:
        DataError: nothing that could be asked changes anybody.
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
    questions = [question for question in found if question is not None]
    if questions:
        return questions
    first = roles.treatments[0]
    do: Intervention = {first.name: "flip" if first.kind == "binary" else first.high}
    question = about_changed(chosen, act(chosen.t_NT, do, roles.treatments), do, None, limit)
    if question is None:
        raise DataError(
            f"{data.path}: do({do_text(do)}) changes none of the {len(chosen):,} images, which all have it already",
            hint="prepare data whose subjects differ in their treatment",
        )
    return [question]


def about_changed(
    rows: LabelledRows,
    t_new_NT: Tensor,
    do: Mapping[str, float | str],
    truth: KnownTruth | None,
    limit: int | None = None,
) -> Question | None:
    """The question about those of the rows whose treatment changes; None where nobody's does.

    A model returns the others' photographs exactly (τ = 1), however bad it is.

    Args:
        t_new_NT: intended treatments of all rows.
        truth: of all rows.
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
    """Images under any intended treatments by the intervention whose truth answers them, those without one last.

    Args:
        names: the treatments.
        rows_N: rows of the data, of which one may come several times.
        t_new_NT: their intended treatments.

    Returns:
        Bool [N] and truth of each intervention that answers any, that with most of them first.
    """
    columns = [[a.name for a in data.attributes].index(name) for name in names]
    left_N = torch.ones_like(rows_N, dtype=torch.bool)
    found: list[tuple[Tensor, KnownTruth | None]] = []
    for truth in data.truth:
        places_N = find_rows(truth.rows, rows_N)
        known_NT = truth.table_MA[places_N.clamp(min=0)][:, columns]
        # Who typed 0.3, or another program, may have rounded it in its own way.
        agrees_N = torch.isclose(known_NT, t_new_NT, rtol=1e-5, atol=1e-7).all(dim=1)
        kept_N = left_N & agrees_N & (places_N >= 0)
        # A truth under other interventions besides has other attributes changed as well.
        if set(truth.do) <= set(names) and kept_N.any():
            found.append((kept_N, KnownTruth(truth, places_N[kept_N])))
            left_N = left_N & ~kept_N
    found.sort(key=lambda entry: -int(entry[0].sum()))
    return [*found, (left_N, None)] if left_N.any() else found


def direction(t_BT: Tensor, t_new_BT: Tensor) -> Tensor:
    """+1 or −1 [B] by whether the first treatment that changes rises or falls, 0 where none changes."""
    step_BT = (t_new_BT - t_BT).sign()
    first_B1 = (step_BT != 0).int().argmax(dim=1, keepdim=True)
    return step_BT.gather(1, first_B1)[:, 0]


def find_rows(rows_M: Tensor, wanted_N: Tensor) -> Tensor:
    """Where each wanted row number stands in `rows_M`, whatever its order: int64 [N], −1 where it does not."""
    if not len(rows_M):
        return torch.full_like(wanted_N, -1)
    sorted_M, order_M = rows_M.sort()
    places_N = torch.searchsorted(sorted_M, wanted_N).clamp(max=len(rows_M) - 1)
    return torch.where(sorted_M[places_N] == wanted_N, order_M[places_N], -1)
