"""Groups of subjects: which there are, and the scores within them against loops over the images."""

import json

import pytest
import torch

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.evaluation.subgroups import Group, groups_of, subgroup_scores

MALE, HAT, TONE = Attribute("Male", "binary"), Attribute("Hat", "binary"), Attribute("Tone", "continuous")
YOUNG, AGE = Attribute("Young", "binary"), Attribute("Age", "continuous")


def covariates(*counts: int) -> torch.Tensor:
    """Rows of (Male, Hat, Tone): so many of (0,0), (0,1), (1,0) and (1,1)."""
    cells = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
    rows = [(*cell, 0.1 * i) for cell, count in zip(cells, counts, strict=True) for i in range(count)]
    return torch.tensor(rows)


def sizes(groups: list[Group]) -> dict[str, int]:
    return {group.label: int(group.members_N.sum()) for group in groups}


def test_groups_are_each_covariate_alone_and_joint_cells_by_direction() -> None:
    roles = AttributeRoles((YOUNG,), (MALE, HAT, TONE))
    x_NX = covariates(10, 10, 8, 3)
    t_NT = (torch.arange(len(x_NX)) % 2).float()[:, None]
    groups = groups_of(x_NX, t_NT, 1 - t_NT, roles, fewest=4)
    alone = {"Male=0": (10, 10), "Male=1": (6, 5), "Hat=0": (9, 9), "Hat=1": (7, 6)}
    joint = {"Male=0, Hat=0": (5, 5), "Male=0, Hat=1": (5, 5), "Male=1, Hat=0": (4, 4)}
    ways = "Young 0 → 1", "Young 1 → 0"
    assert sizes(groups) == {
        f"{who}, {way}": count
        for who, counts in (alone | joint).items()
        for way, count in zip(ways, counts, strict=True)
    }
    first, joint_first = groups[0].members_N, groups[8].members_N
    assert torch.equal(first, (x_NX[:, 0] == 0) & (t_NT[:, 0] == 0))
    assert torch.equal(joint_first, (x_NX[:, :2] == 0).all(dim=1) & (t_NT[:, 0] == 0))


def test_a_rare_kind_of_subject_is_in_a_group_though_in_no_joint_cell() -> None:
    roles = AttributeRoles((YOUNG,), (MALE, HAT, TONE))
    x_NX, zeros = covariates(20, 4, 20, 4), torch.zeros(48, 1)
    found = sizes(groups_of(x_NX, zeros, zeros + 1, roles, fewest=8))
    assert found["Hat=1, Young 0 → 1"] == 8
    assert {name for name in found if name.count("=") == 2} == {
        "Male=0, Hat=0, Young 0 → 1",
        "Male=1, Hat=0, Young 0 → 1",
    }
    assert groups_of(x_NX, zeros, zeros + 1, roles, fewest=41) == []


def test_one_covariate_makes_no_group_twice_and_many_make_no_joint_ones() -> None:
    x_NX, zeros = covariates(6, 6, 6, 6), torch.zeros(24, 1)
    one = groups_of(x_NX[:, :1], zeros, zeros + 1, AttributeRoles((YOUNG,), (MALE,)), fewest=1)
    assert sizes(one) == {"Male=0, Young 0 → 1": 12, "Male=1, Young 0 → 1": 12}
    many = tuple(Attribute(f"A{i}", "binary") for i in range(7))
    found = groups_of(zeros.repeat(1, 7), zeros, zeros + 1, AttributeRoles((YOUNG,), many), fewest=1)
    assert set(sizes(found)) == {f"A{i}=0, Young 0 → 1" for i in range(7)}


def test_directions_alone_and_continuous_treatments() -> None:
    t_NT = torch.tensor([[20.0, 1.0], [40.0, 1.0], [60.0, 0.0]])
    t_new_NT = torch.tensor([[50.0, 0.0], [50.0, 0.0], [50.0, 0.0]])
    groups = groups_of(torch.zeros(3, 0), t_NT, t_new_NT, AttributeRoles((AGE, YOUNG), ()), fewest=1)
    assert sizes(groups) == {"Age lowered": 1, "Age raised, Young 1 → 0": 2}


def test_images_in_which_nothing_changes_are_in_no_group() -> None:
    roles, x_NX = AttributeRoles((YOUNG,), (MALE, HAT, TONE)), covariates(4, 4, 4, 4)
    t_NT = (torch.arange(16) % 4 > 0).float()[:, None]  # a quarter is old already
    groups = groups_of(x_NX, t_NT, torch.zeros(16, 1), roles, fewest=3)
    assert list(sizes(groups).values()) == [6, 6, 6, 6, 3, 3, 3, 3]
    assert all(label.endswith("Young 1 → 0") for label in sizes(groups))
    assert groups_of(x_NX, t_NT, t_NT, roles, fewest=1) == []


def test_scores_agree_with_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 60
    error_N, size_N = torch.rand(2, count, generator=generator, dtype=torch.float64) + 0.1
    right_N = (torch.rand(count, generator=generator) < 0.7).double()
    leak_NA = torch.randn(count, 2, generator=generator, dtype=torch.float64) + torch.tensor([-2.0, 0.0])
    groups = [Group(name, torch.arange(count) % 3 == i) for i, name in enumerate("abc")]
    per_image = {"error": error_N, "size": size_N, "effective": right_N}
    per_image |= {"leak.Male": leak_NA[:, 0], "leak.Hat": leak_NA[:, 1]}
    found = subgroup_scores(per_image, groups, seed=0, fewest=20)["subgroups"]
    json.dumps(found, allow_nan=False)

    ratios = {g.label: float(error_N[g.members_N].sum() / size_N[g.members_N].sum()) for g in groups}
    worst = max(ratios, key=lambda name: ratios[name])
    entry = found["relative_effect_error"]
    assert entry["worst"]["group"] == worst and entry["worst"]["n"] == 20
    assert entry["worst"]["mean"] == pytest.approx(ratios[worst])
    assert entry["gap"] == pytest.approx(max(ratios.values()) - min(ratios.values()))
    assert [row["mean"] for row in entry["groups"]] == pytest.approx(sorted(ratios.values(), reverse=True))

    shares = {g.label: float(right_N[g.members_N].mean()) for g in groups}
    assert found["effectiveness"]["worst"]["mean"] == pytest.approx(min(shares.values()))
    assert found["effectiveness"]["best"]["mean"] == pytest.approx(max(shares.values()))

    leaks = {g.label: leak_NA[g.members_N].mean(dim=0) for g in groups}
    most = max(leaks, key=lambda name: float(leaks[name].abs().max()))
    assert found["leak"]["worst"]["group"] == most
    assert found["leak"]["worst"]["attribute"] == ("Male", "Hat")[int(leaks[most].abs().argmax())]
    assert abs(found["leak"]["worst"]["mean"]) == pytest.approx(float(leaks[most].abs().max()))


def test_one_group_is_no_comparison_and_what_was_not_measured_is_absent() -> None:
    whole = Group("all", torch.ones(4, dtype=torch.bool))
    assert subgroup_scores({"effective": torch.ones(4)}, [whole], seed=0) == {}
    assert subgroup_scores({}, [whole, whole], seed=0) == {}
    untouched = {"error": torch.ones(4), "size": torch.zeros(4)}
    assert subgroup_scores(untouched, [whole, whole], seed=0) == {}


def alike(count: int, ways: int) -> list[Group]:
    return [Group(str(way), torch.arange(count) % ways == way) for way in range(ways)]


def test_the_gap_by_chance_is_that_of_groups_served_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    right_RN = (torch.rand(2_000, 480, generator=generator) < 0.95).double()
    share_RG = right_RN.view(2_000, 30, 16).mean(dim=1)
    expected = float((share_RG.amax(dim=1) - share_RG.amin(dim=1)).mean())  # .13, of 16 groups of 30
    assert expected == pytest.approx(0.13, abs=0.005) and float(share_RG.amin(dim=1).mean()) < 0.88
    typical_N = right_RN[(right_RN.mean(dim=1) - 0.95).abs().argmin()]
    found = subgroup_scores({"effective": typical_N}, alike(480, 16), seed=0)["subgroups"]["effectiveness"]
    assert found["gap_by_chance"] == pytest.approx(expected, abs=0.015)
    again = subgroup_scores({"effective": typical_N}, alike(480, 16), seed=0)["subgroups"]["effectiveness"]
    assert again == found


def test_a_gap_that_is_there_is_far_beyond_chance_in_every_measure() -> None:
    count = 240
    generator = torch.Generator().manual_seed(2)
    served_N = (torch.arange(count) % 4 > 0).double()
    error_N = 1.2 - served_N + 0.1 * torch.rand(count, generator=generator, dtype=torch.float64)
    leak_N = 2 * (1 - served_N) + torch.randn(count, generator=generator, dtype=torch.float64)
    per_image = {"error": error_N, "size": torch.ones(count), "effective": served_N, "leak.Male": leak_N}
    found = subgroup_scores(per_image, alike(count, 4), seed=0)["subgroups"]
    assert set(found) == {"relative_effect_error", "effectiveness", "leak"}
    for entry in found.values():
        assert 0.0 < entry["gap_by_chance"] < 0.35 * entry["gap"]


def test_images_that_cannot_be_judged_count_in_no_group() -> None:
    """Of three groups of 40, one has ten images set to half a dose, and another eleven, which leaves too few."""
    groups, place_N = alike(120, 3), torch.arange(120) // 3
    effective_N = (place_N < 20).double()
    effective_N[groups[1].members_N & (place_N < 10)] = torch.nan
    effective_N[groups[2].members_N & (place_N < 11)] = torch.nan
    found = subgroup_scores({"effective": effective_N}, groups, seed=0)["subgroups"]["effectiveness"]
    json.dumps(found, allow_nan=False)
    assert [(row["group"], row["n"], row["mean"]) for row in found["groups"]] == [
        ("1", 30, pytest.approx(10 / 30)),
        ("0", 40, 0.5),
    ]
    assert found["gap"] == pytest.approx(0.5 - 1 / 3) and 0.0 < found["gap_by_chance"] < 0.2
    effective_N[groups[1].members_N & (place_N < 11)] = torch.nan
    assert subgroup_scores({"effective": effective_N}, groups, seed=0) == {}, "one group is no comparison"


def test_groups_without_an_effect_take_no_part_in_the_gap_by_chance() -> None:
    per_image = {"error": torch.tensor([0.5, 0.5, 0.0, 0.0]), "size": torch.tensor([1.0, 0.0, 0.0, 0.0])}
    entry = subgroup_scores(per_image, alike(4, 4), seed=0)["subgroups"]["relative_effect_error"]
    assert entry["gap"] == entry["gap_by_chance"] == 0.0
