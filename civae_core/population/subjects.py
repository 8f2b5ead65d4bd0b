"""The subjects of a population answer: selected images that the intervention changes, grouped by covariate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from civae_core.assignments import Intervention, do_text
from civae_core.attributes import Attribute, AttributeRoles, require_name
from civae_core.counterfactual import act
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread, labelled_rows
from civae_core.data.selection import Selection
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.average_effects import EffectGroup, halves_by
from civae_core.evaluation.question import KnownTruth, Question, by_known_truth


@dataclass(frozen=True)
class Subjects:
    """Images that an intervention changes, with their intended treatments."""

    chosen: LabelledRows
    t_new_NT: Tensor
    do: Intervention
    parts: tuple[tuple[int, KnownTruth | None], ...]
    """In order, the number of consecutive images that share a source of the truth, and that source, if any."""
    unmoved: int
    """Number of selected images that already have the intended treatment."""

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def with_truth(self) -> int:
        return sum(count for count, truth in self.parts if truth is not None)

    def questions(self) -> Iterator[tuple[int, Question]]:
        """Yield the subjects as questions, each with the index of its first subject."""
        start = 0
        for count, truth in self.parts:
            items = slice(start, start + count)
            yield start, Question(self.chosen[items], self.t_new_NT[items], self.do, truth)
            start += count


def labelled_selection(
    data: PreparedData, roles: AttributeRoles, selection: Selection, limit: int | None = None
) -> LabelledRows:
    """The selected images whose treatments and covariates are known, at most `limit` of them, evenly spread.

    Raises:
        UsageError: the selection lies outside the split.
        DataError: there are no such images.
    """
    wanted_N = selection.rows(data)
    known = labelled_rows(data, roles, selection.split)
    kept = known[torch.isin(known.rows_N, wanted_N)]
    if not len(kept):
        raise DataError(
            f"--data {selection.path}#{selection.split}: none of the {len(wanted_N):,} selected images has a known "
            "treatment and known covariates",
            hint=f"complete the table ({', '.join(a.name for a in roles.inputs)}), or name other images with --data",
        )
    return kept[evenly_spread(len(kept), limit or len(kept))]


def subjects_of(
    chosen: LabelledRows, intervention: Intervention, data: PreparedData, roles: AttributeRoles
) -> Subjects:
    """The images that the intervention changes.

    Raises:
        UsageError: a flip is combined with other treatments.
        DataError: the intervention changes none of the images.
    """
    if len(intervention) > 1 and "flip" in intervention.values():
        raise UsageError(
            f"--treat {do_text(intervention)}: a mean over flips in both directions needs a single treatment",
            hint="give a value for every treatment",
        )
    t_new_NT = act(chosen.t_NT, intervention, roles.treatments)
    moved_N = (t_new_NT != chosen.t_NT).any(dim=1)
    if not moved_N.any():
        raise DataError(
            f"--treat {do_text(intervention)}: changes none of the {len(chosen):,} images, which all have it already",
            hint="set another value, or name other images with --data",
        )
    rows_N, t_new_NT = chosen.rows_N[moved_N], t_new_NT[moved_N]
    by_truth = by_known_truth(data, [a.name for a in roles.treatments], rows_N, t_new_NT)
    order_N = torch.cat([kept_N.nonzero()[:, 0] for kept_N, _ in by_truth])
    return Subjects(
        chosen[moved_N][order_N],
        t_new_NT[order_N],
        intervention,
        tuple((int(kept_N.sum()), truth) for kept_N, truth in by_truth),
        int((~moved_N).sum()),
    )


def covariates_by_name(names: Sequence[str], roles: AttributeRoles) -> list[Attribute]:
    """The covariates to group by.

    Raises:
        UsageError: a name is not a covariate of the model.
    """
    by_name: Mapping[str, Attribute] = {a.name: a for a in roles.covariates}
    for name in names:
        if name in {a.name for a in roles.treatments}:
            raise UsageError(
                f"--by {name}: is a treatment, not a covariate",
                hint=f"covariates of this model: {', '.join(by_name) or 'none'}",
            )
        require_name(name, by_name, "--by")
    return [by_name[name] for name in dict.fromkeys(names)]


def groups_by(
    subjects: Subjects, covariates: Sequence[Attribute], roles: AttributeRoles
) -> list[EffectGroup]:
    """Everyone, then both halves by each covariate; a covariate with an empty half is skipped."""
    groups = [EffectGroup("everyone", torch.ones(len(subjects), dtype=torch.bool))]
    for attribute in covariates:
        x_N = subjects.chosen.x_NX[:, roles.covariates.index(attribute)]
        halves = [EffectGroup(label, member_N) for label, member_N in halves_by(attribute, x_N)]
        if all(half.count for half in halves):
            groups += halves
    return groups
