"""The report: imbalance by its definition, overlap of a question, and a page that is safe and self-contained."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.data import report
from civae_core.data.images import Preprocessing
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.report import imbalance, strongest
from civae_core.data.report_figures import imbalance_figure
from civae_core.data.sources.base import Batch, Question, Source
from civae_core.data.tables import Table

COUNT = 600


class Grey:
    """Grey images, the first of them refused."""

    def read(self, rows: range) -> Batch:
        kept = np.array([row for row in rows if row], np.int64)
        rejected = [(row, "<b>burnt</b>") for row in rows if not row]
        return Batch(kept, np.full((len(kept), 3, 8, 8), 128, np.uint8), rejected)


@pytest.fixture
def confounded() -> Source:
    """Old goes with Male in training, and with nothing in the other splits; some labels of Smiling are missing."""
    generator = np.random.default_rng(0)
    splits_N = np.repeat([0, 1, 2], COUNT // 3).astype(np.uint8)
    male = generator.random(COUNT) < 0.5
    old = generator.random(COUNT) < np.where(splits_N == 0, np.where(male, 0.8, 0.2), 0.5)
    smiling = np.where(generator.random(COUNT) < 0.1, np.nan, generator.random(COUNT) < 0.5)
    values_NA = np.stack([male, old, smiling, generator.normal(40, 9, COUNT)], 1).astype(np.float32)
    return Source(
        name="a <script>alert(1)</script> & b",
        identity={"kind": "test"},
        table=Table(
            file_names=[f"<i>{row}</i>" for row in range(COUNT)],
            names=("Male", "Old", "Smiling", "Age"),
            kinds=("binary", "binary", "binary", "continuous"),
            values_NA=values_NA,
            splits_N=splits_N,
            notes=["A <note>."],
        ),
        splits_N=splits_N,
        preprocessing=Preprocessing(8),
        reader=Grey(),
        question=Question(("Old",), ("Male", "Smiling", "Age")),
    )


def write(source: Source, out: Path) -> tuple[dict, str]:
    prepare(source, out, workers=1, max_bad=MaxBad.parse("1"))
    return json.loads((out / "report.json").read_text()), (out / "report.html").read_text(encoding="utf-8")


def test_imbalance_is_the_difference_of_conditional_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    table_NA = (torch.rand(400, 4, generator=generator) < 0.4).float()
    table_NA[torch.rand(400, 4, generator=generator) < 0.1] = torch.nan
    matrix = imbalance(table_NA)
    for a in range(4):
        for b in range(4):
            if a != b:
                both = table_NA[~table_NA[:, [a, b]].isnan().any(1)]
                expected = both[both[:, b] == 1, a].mean() - both[both[:, b] == 0, a].mean()
                assert float(matrix[a, b]) == pytest.approx(float(expected), abs=1e-6)
    assert matrix.diagonal().isnan().all()
    monkeypatch.setattr(report, "ROWS_AT_ONCE", 30)
    torch.testing.assert_close(imbalance(table_NA), matrix, rtol=0, atol=0, equal_nan=True)
    every_second = torch.arange(0, 400, 2)
    found = imbalance(table_NA, every_second)
    torch.testing.assert_close(found, imbalance(table_NA[every_second]), rtol=0, atol=0, equal_nan=True)


def test_imbalance_of_a_constant_attribute_is_undefined() -> None:
    matrix = imbalance(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert matrix[1, 0].isnan() and float(matrix[0, 1]) == 0


def test_facts_are_those_of_the_training_split(confounded: Source, tmp_path: Path) -> None:
    facts, page = write(confounded, tmp_path / "out")
    names, matrix = facts["imbalance"]["names"], facts["imbalance"]["matrix"]
    assert names == ["Male", "Old", "Smiling"]
    assert facts["imbalance"]["not_shown"] == 0 and "Shown are" not in page
    assert matrix[1][0] == pytest.approx(0.6, abs=0.15)
    assert facts["splits"] == {"train": 199, "valid": 200, "test": 200}
    assert facts["rejected"] == [{"file": "<i>0</i>", "reason": "<b>burnt</b>"}]
    smiling = facts["attributes"][2]["splits"]["train"]
    assert smiling["missing"] > 0 and smiling["known"] + smiling["missing"] == 199
    (overlap,) = facts["overlap"]
    assert overlap["treatment"] == "Old" and overlap["covariates"] == ["Male", "Smiling", "Age"]
    assert overlap["auc"] == pytest.approx(0.8, abs=0.1) and overlap["missing"] == smiling["missing"]


def test_the_strongest_pair_is_named_once(confounded: Source, tmp_path: Path) -> None:
    facts, _ = write(confounded, tmp_path / "out")
    pairs = strongest(facts)
    assert {pairs[0]["of"], pairs[0]["given"]} == {"Male", "Old"}
    assert len({frozenset((pair["of"], pair["given"])) for pair in pairs}) == len(pairs) == 3


def test_of_many_attributes_those_asked_about_and_the_most_associated_are_shown(
    confounded: Source, tmp_path: Path
) -> None:
    names = tuple(f"a{number}" for number in range(100))
    values_NA = np.tile(np.arange(2, dtype=np.float32), (COUNT, 50))
    generator = np.random.default_rng(1)
    values_NA[:, 30:] = generator.random((COUNT, 70)) < 0.5  # the first 30 have one value, so go with nothing
    table = replace(confounded.table, names=names, kinds=("binary",) * 100, values_NA=values_NA)
    facts, page = write(
        replace(confounded, table=table, question=Question(("a28",), ("a29",))), tmp_path / "out"
    )
    shown = facts["imbalance"]
    assert len(shown["names"]) == len(shown["matrix"]) == 80 and shown["not_shown"] == 20
    assert set(names[28:]) <= set(shown["names"])
    assert shown["names"] == [name for name in names if name in shown["names"]], "in the table's order"
    assert "Shown are 80 of 100 binary attributes: those of the question, and those with" in page
    assert len(facts["attributes"]) == 100


def test_a_report_that_was_half_written_is_written_again(
    confounded: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report, "_render", lambda _, facts: json.dumps([facts["question"], facts["rejected"]])
    )
    out = tmp_path / "out"

    def page(treatment: str) -> str:
        prepare(confounded, out, workers=1, max_bad=MaxBad.parse("1"), question=Question((treatment,)))
        return (out / "report.html").read_text(encoding="utf-8")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for written in ("write_text", "write_json"):
        for again in ("Old", "Male"):
            assert '["Old"]' in page("Old")
            with monkeypatch.context() as patched:
                patched.setattr(report, written, killed)
                with pytest.raises(KeyboardInterrupt):
                    page("Male")
            found = page(again)
            assert f'["{again}"]' in found, f"killed in {written}"
            assert "<i>0</i>" in found, "the rejected file is not forgotten"


def test_the_page_escapes_and_refers_to_nothing_outside(confounded: Source, tmp_path: Path) -> None:
    _, page = write(confounded, tmp_path / "out")
    assert "<script" not in page and "<i>0" not in page and "<b>burnt" not in page and "<note>" not in page
    assert "&lt;i&gt;0&lt;/i&gt;" in page and "&lt;b&gt;burnt" in page and "A &lt;note&gt;." in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_page_says_how_to_ask_when_nothing_was_asked(confounded: Source, tmp_path: Path) -> None:
    facts, page = write(replace(confounded, question=Question()), tmp_path / "out")
    assert facts["overlap"] == [] and "No question was given" in page


def test_a_continuous_treatment_without_covariates(confounded: Source, tmp_path: Path) -> None:
    facts, page = write(replace(confounded, question=Question(("Age",))), tmp_path / "out")
    assert facts["overlap"][0]["kind"] == "continuous" and "Changing Age" in page


def test_known_counterfactuals_are_shown(counting_source: Callable[..., Source], tmp_path: Path) -> None:
    _, page = write(counting_source(50, truths=1), tmp_path / "out")
    assert "Known counterfactuals" in page


@pytest.mark.usefixtures("in_full")
@pytest.mark.parametrize("count", [2, 16, 40])
def test_the_heat_map_shows_each_difference_in_its_cell(count: int) -> None:
    sign = [-1.0 if b < count / 2 else 1.0 for b in range(count)]
    matrix = [[None if a == b else sign[b] for b in range(count)] for a in range(count)]
    picture = imbalance_figure([f"attribute_{n}$" for n in range(count)], matrix)
    pixels = np.asarray(picture).astype(int)[:, : int(0.8 * picture.width)]  # without the colour bar
    red, blue = ((pixels[..., one] - pixels[..., other] > 60).nonzero()[1] for one, other in ((0, 2), (2, 0)))
    assert blue.max() < red.min()


@pytest.mark.usefixtures("in_full")
def test_one_attribute_goes_together_with_nothing() -> None:
    picture = imbalance_figure(["alone"], [[None]])
    assert (np.asarray(picture) == 0xD8).all(axis=2).any()


def test_other_treatments_are_covariates_of_each(confounded: Source, tmp_path: Path) -> None:
    values_NA = confounded.table.values_NA.copy()
    values_NA[:, 1] = values_NA[:, 0]
    table = replace(confounded.table, values_NA=values_NA)
    facts, _ = write(
        replace(confounded, table=table, question=Question(("Old", "Male"), ("Age",))), tmp_path / "out"
    )
    old, male = facts["overlap"]
    assert (old["covariates"], male["covariates"]) == (["Age", "Male"], ["Age", "Old"])
    assert old["level"] == male["level"] == "poor" and old["auc"] == 1.0
