"""`--truth`: which interventions a source is asked to know, single, swept and joint, and how they are stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.resolve import SourceOptions, open_source
from civae_core.data.sources.truths import parse_truths
from civae_core.errors import UsageError
from civae_core.synthetic import AGE_ROLES, ATTRIBUTES, IN_TWO_CLASSES, IN_YEARS, FaceProcess, roots_of


def dos(*texts: str) -> list[dict[str, Any]]:
    return [dict(spec.do) for spec in parse_truths(texts, roots_of(IN_TWO_CLASSES), {"Gray_Hair"})]


def test_one_text_is_one_intervention_and_several_are_several() -> None:
    assert dos("Young=flip", "Male=1") == [{"Young": "flip"}, {"Male": 1.0}]
    assert dos("Young=flip,Male=1") == [{"Young": "flip", "Male": 1.0}]
    assert dos("Young=flip , Male=flip", "Male=flip") == [{"Young": "flip", "Male": "flip"}, {"Male": "flip"}]


def test_sweeps_within_a_text_stand_for_their_grid() -> None:
    found = parse_truths(["Skin_Tone=0:1:3,Male=flip"], roots_of(IN_TWO_CLASSES), ())
    assert [spec.name for spec in found] == [f"Skin_Tone={tone},Male=flip" for tone in ("0", "0.5", "1")]
    assert found[1].do == {"Skin_Tone": 0.5, "Male": "flip"}


def test_a_truth_asked_for_twice_is_stored_once() -> None:
    assert dos("Young=0", "Young=0:1:2", "Young=0.0") == [{"Young": 0.0}, {"Young": 1.0}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Young=0,Young=1", "Young is set twice"),
        ("Young=flip,", "has a comma too many"),
        ("Gray_Hair=1", "Gray_Hair follows from other attributes, so it cannot be set"),
        ("Young=flip,Mael=flip", r"unknown attribute 'Mael' \(did you mean Male\?\)"),
        ("Young=flip,Skin_Tone=flip", "has no other value to flip to"),
        ("Young", "needs the form NAME=VALUE"),
        ("Young=nan", "'nan' is not a finite number"),
    ],
)
def test_what_cannot_be_set_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dos(text)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    options = SourceOptions(size=32, count=60, seed=3, truths=["Male=flip", "Young=flip,Male=flip"])
    out = tmp_path_factory.mktemp("joint") / "faces"
    return prepare(open_source("synthetic:faces", options), out, workers=1, max_bad=MaxBad.parse("0")).data


def test_joint_truths_are_rendered_under_both_at_once(joint: PreparedData) -> None:
    process = FaceProcess(seed=3, size=32)
    held_out = process.subjects(48, 12, randomised=True)
    both, one = joint.truth[1], joint.truth[0]
    changed = held_out.under({"Young": "flip", "Male": "flip"})
    everyone = torch.arange(12)
    assert torch.equal(both.images(everyone), process.render(changed))
    assert torch.equal(both.table_MA, changed.attributes_NA)
    assert (both.images(everyone) != one.images(everyone)).flatten(1).any(1).all()


def test_joint_truths_come_back_from_the_manifest(joint: PreparedData) -> None:
    text = (joint.path / "dataset.yml").read_text()
    assert "name: Young=flip,Male=flip" in text
    again = PreparedData.open(joint.path)
    assert [truth.do for truth in again.truth] == [{"Male": "flip"}, {"Young": "flip", "Male": "flip"}]
    assert again.manifest.source["truths"] == ["Male=flip", "Young=flip,Male=flip"]


def test_faces_in_years_know_their_doses(tmp_path: Path) -> None:
    source = open_source("synthetic:faces-age", SourceOptions(size=32, count=60, seed=3, overlap=0.7))
    assert [spec.name for spec in source.truths] == ["Age=20", "Age=35", "Age=50", "Age=65", "Age=80"]
    assert source.question.treatment == ("Age",)
    assert set(source.question.covariates) == {a.name for a in AGE_ROLES.covariates}
    data = prepare(source, tmp_path / "faces", workers=1, max_bad=MaxBad.parse("0")).data
    assert data.name == "synthetic:faces-age"
    process = FaceProcess(overlap=0.7, seed=3, size=32, ageing=IN_YEARS)
    observed, held_out = process.subjects(0, 48), process.subjects(48, 12, randomised=True)
    assert torch.equal(data.images(torch.arange(48)), process.render(observed))
    assert torch.equal(data.column("Age"), torch.cat([observed.roots["Age"], held_out.roots["Age"]]))
    for truth, dose in zip(data.truth, (20.0, 35.0, 50.0, 65.0, 80.0), strict=True):
        assert torch.equal(truth.images(torch.arange(12)), process.render(held_out.under({"Age": dose})))
    (age,) = [a for a in data.attributes if a.name == "Age"]
    assert age.kind == "continuous"
    assert 18 <= age.low < 22 and 60 < age.high <= 85
    assert "drawn by a computer" in (tmp_path / "faces" / "report.html").read_text()


def test_any_real_dose_can_be_asked_for() -> None:
    options = SourceOptions(size=32, count=20, truths=["Age=-20:120:3,Male=flip"])
    source = open_source("synthetic:faces-age", options)
    truths = source.reader.read(range(16, 20)).truths
    names = list(source.table.names)
    assert [truth.attributes_MA[0, names.index("Age")] for truth in truths] == [-20, 50, 120]
    np.testing.assert_array_equal(truths[2].attributes_MA[:, names.index("Young")], 0)
    assert all(len(truth.images) == 4 for truth in truths)


def test_each_source_sets_its_own_age() -> None:
    with pytest.raises(UsageError, match="Young follows from other attributes"):
        open_source("synthetic:faces-age", SourceOptions(truths=["Young=0"]))
    with pytest.raises(UsageError, match="unknown attribute 'Age'"):
        open_source("synthetic:faces", SourceOptions(truths=["Age=30"]))
    with pytest.raises(UsageError, match=r"did you mean synthetic:faces-age\?"):
        open_source("synthetic:faces-agee", SourceOptions())


def test_the_default_truths_of_faces_are_as_they_were() -> None:
    """They are part of what tells one preparation from another: data prepared earlier is still recognised."""
    source = open_source("synthetic:faces", SourceOptions(size=32, count=20))
    assert source.identity == {
        "kind": "synthetic:faces",
        "n": 20,
        "seed": 0,
        "overlap": 0.5,
        "truths": ["Young=flip", "Male=flip"],
    }
    assert source.table.names == tuple(a.name for a in ATTRIBUTES)
