"""Who is served worst? The same scores within groups of subjects, and the gap between the worst and the best group.

By chance alone, the worst of several groups is worse than all subjects together, and there is a gap even where all
are served alike. How wide that gap would be is estimated by shuffling the groups' labels among the subjects.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.evaluation.bootstrap import Interval, bootstrap_mean, bootstrap_ratio, share_interval
from civae_core.randomness import generator_for

FEWEST = 30
"""Images that a group needs for its score to be meaningful."""
PERMUTATIONS = 100
"""Number of shuffles of the groups' labels."""
MOST_JOINT = 6
"""With more binary covariates, there are no joint groups."""


@dataclass(frozen=True)
class Group:
    """Subjects who share covariates and the direction of the intervention."""

    label: str
    members_N: Tensor
    """Bool [N]."""


def groups_of(
    x_NX: Tensor, t_NT: Tensor, t_new_NT: Tensor, roles: AttributeRoles, fewest: int = FEWEST
) -> list[Group]:
    """Subjects by each binary covariate alone, and by all of them jointly, × how the treatments change.

    A group has at least `fewest` images. Joint cells alone would leave out whoever is in none of that size, which are
    the rare kinds of subjects; covariates alone would average over who is served badly in a combination. So an image
    is in several groups. Images in which no treatment changes are in none: all their scores are trivially good, and
    they would always make the best group.

    Args:
        x_NX: covariates, in the order of the roles.
        t_NT: factual treatments.
        t_new_NT: intended treatments.
    """
    binary = [column for column, attribute in enumerate(roles.covariates) if attribute.kind == "binary"]
    changes = _changes(t_NT, t_new_NT, roles)
    groups = [group for column in binary for group in _cells(x_NX, [column], roles, changes)]
    if len(binary) != 1 and len(binary) <= MOST_JOINT:
        groups += _cells(x_NX, binary, roles, changes)
    return [group for group in groups if int(group.members_N.sum()) >= fewest]


def subgroup_scores(
    per_image: Mapping[str, Tensor], groups: Sequence[Group], seed: int, fewest: int = FEWEST
) -> dict[str, Any]:
    """The entry `subgroups` of a method: for each measure, the worst and best group, their gap, and all groups.

    Beside `gap` stands `gap_by_chance`, the mean gap after shuffling subjects among the groups: subjects keep their
    scores and groups their sizes. It is how much groups of these sizes differ if all are served alike, and far less
    than the gap where they are not.

    Measures: `relative_effect_error` (within a group, Σ error / Σ size of the effect), `effectiveness` (share seen as
    intended) and `leak` (of the attribute that leaks most in that group, in standard deviations). Measures for which
    `per_image` has no values are absent.

    Args:
        per_image: values [N] by name, as the tallies keep them.
        groups: with fewer than two there is nothing to compare, and the result is empty.
        fewest: images with a known effectiveness that a group needs to be compared by it.
    """
    if len(groups) < 2:
        return {}
    found: dict[str, Any] = {}
    if {"error", "size"} <= set(per_image):
        error_N, size_N = per_image["error"], per_image["size"]
        touched = [group for group in groups if float(size_N[group.members_N].sum()) > 0.0]
        found["relative_effect_error"] = _compared(
            touched, lambda m: bootstrap_ratio(error_N[m], size_N[m], seed=seed), worst_is_high=True
        ) | _by_chance(touched, torch.stack([error_N, size_N], dim=1), _ratio, seed)
    if "effective" in per_image:
        right_N = per_image["effective"]
        judged = _among(groups, right_N.isfinite(), fewest)
        if len(judged) > 1:
            found["effectiveness"] = _compared(
                judged, lambda m: share_interval(right_N[m]), worst_is_high=False
            ) | _by_chance(judged, right_N[:, None], lambda sums_GV, count_G: sums_GV[:, 0] / count_G, seed)
    leaks = {
        name.removeprefix("leak."): values for name, values in per_image.items() if name.startswith("leak.")
    }
    if leaks:
        found["leak"] = _leaks_compared(groups, leaks, seed)
    return {"subgroups": found} if any(found.values()) else {}


def _among(groups: Sequence[Group], known_N: Tensor, fewest: int) -> list[Group]:
    """The groups' images that are known, of groups with at least `fewest` of them."""
    known = [Group(group.label, group.members_N & known_N) for group in groups]
    return [group for group in known if int(group.members_N.sum()) >= fewest]


def _compared(
    groups: Sequence[Group], score: Callable[[Tensor], Interval], *, worst_is_high: bool
) -> dict[str, Any]:
    rows = [_row(group, score(group.members_N)) for group in groups]
    ranked = sorted(rows, key=lambda row: row["mean"], reverse=worst_is_high)
    return _summary(ranked, abs(ranked[0]["mean"] - ranked[-1]["mean"])) if ranked else {}


def _leaks_compared(groups: Sequence[Group], leaks: Mapping[str, Tensor], seed: int) -> dict[str, Any]:
    names = list(leaks)
    leak_NA = torch.stack([leaks[name] for name in names], dim=1)
    rows = []
    for group in groups:
        mean_A = leak_NA[group.members_N].mean(dim=0)
        worst = int(mean_A.abs().argmax())
        interval = bootstrap_mean(leak_NA[group.members_N, worst], seed=seed)
        rows.append({**_row(group, interval), "attribute": names[worst]})
    ranked = sorted(rows, key=lambda row: -abs(row["mean"]))
    return _summary(ranked, abs(ranked[0]["mean"]) - abs(ranked[-1]["mean"])) | _by_chance(
        groups, leak_NA, lambda sums_GA, count_G: (sums_GA / count_G[:, None]).abs().amax(dim=1), seed
    )


def _ratio(sums_G2: Tensor, count_G: Tensor) -> Tensor:
    return sums_G2[:, 0] / sums_G2[:, 1]


def _by_chance(
    groups: Sequence[Group], values_NV: Tensor, score: Callable[[Tensor, Tensor], Tensor], seed: int
) -> dict[str, float]:
    """The entry `gap_by_chance`; empty without groups.

    Args:
        values_NV: values that are summed within groups.
        score: from the groups' sums [G, V] and sizes [G] to their scores [G]; scores that are not finite are ignored.
    """
    if not groups:
        return {}
    member_GN = torch.stack([group.members_N for group in groups])
    in_any_N = member_GN.any(dim=0)
    member_GM, values_MV = member_GN[:, in_any_N].double(), values_NV[in_any_N].double()
    count_G = member_GM.sum(dim=1)
    generator = generator_for(seed, "gap between groups by chance")
    gaps = []
    for _ in range(PERMUTATIONS):
        shuffled_M = torch.randperm(len(values_MV), generator=generator)
        score_G = score(member_GM @ values_MV.index_select(0, shuffled_M), count_G)
        score_G = score_G[score_G.isfinite()]
        gaps.append(float(score_G.max() - score_G.min()))
    return {"gap_by_chance": sum(gaps) / PERMUTATIONS}


def _summary(ranked: list[dict[str, Any]], gap: float) -> dict[str, Any]:
    return {"worst": ranked[0], "best": ranked[-1], "gap": gap, "groups": ranked}


def _row(group: Group, interval: Interval) -> dict[str, Any]:
    return {"group": group.label, "n": int(group.members_N.sum()), **interval.to_dict()}


def _changes(t_NT: Tensor, t_new_NT: Tensor, roles: AttributeRoles) -> list[Group]:
    """Images grouped by how their treatments change: `Young 1 → 0`, or for a continuous one `Age raised`."""
    parts: list[list[str]] = [[] for _ in range(len(t_NT))]
    for column, attribute in enumerate(roles.treatments):
        for row, (old, new) in enumerate(
            zip(t_NT[:, column].tolist(), t_new_NT[:, column].tolist(), strict=True)
        ):
            if old != new:
                way = "raised" if new > old else "lowered"
                text = f"{old:g} → {new:g}" if attribute.kind == "binary" else way
                parts[row].append(f"{attribute.name} {text}")
    labels = [", ".join(part) for part in parts]
    return [
        Group(label, torch.tensor([other == label for other in labels], dtype=torch.bool))
        for label in sorted(set(labels) - {""})
    ]


def _cells(x_NX: Tensor, columns: list[int], roles: AttributeRoles, changes: list[Group]) -> list[Group]:
    known_N = x_NX[:, columns].isfinite().all(dim=1)
    cells = []
    for values in x_NX[known_N][:, columns].unique(dim=0).tolist() if columns else [[]]:
        shares_N = (x_NX[:, columns] == torch.tensor(values)).all(dim=1) if columns else known_N
        names = [
            f"{roles.covariates[column].name}={value:g}"
            for column, value in zip(columns, values, strict=True)
        ]
        cells += [Group(", ".join([*names, change.label]), shares_N & change.members_N) for change in changes]
    return cells
