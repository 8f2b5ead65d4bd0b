"""The report counts images by which of the question's labels they lack."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Question, Source

TRAIN, VALID, TEST = 0, 1, 2
SPLITS_N = np.array([TRAIN] * 6 + [VALID] * 3 + [TEST], np.uint8)
OLD_N = [1, 0, np.nan, np.nan, 1, 1, 0, np.nan, 1, 0]
MALE_N = [1, np.nan, 0, np.nan, 0, 1, 1, np.nan, np.nan, 1]
HAT_N = [np.nan, 0, 1, 1, 0, 1, np.nan, 1, 0, 0]


@pytest.fixture
def lacking(counting_source: Callable[..., Source]) -> Source:
    source = counting_source(10)
    values_NA = np.array([OLD_N, MALE_N, HAT_N], np.float32).T
    table = replace(source.table, names=("Old", "Male", "Hat"), kinds=("binary",) * 3, values_NA=values_NA)
    return replace(source, table=table, splits_N=SPLITS_N)


def report(source: Source, out: Path) -> tuple[dict, str]:
    prepare(source, out, workers=1, max_bad=MaxBad.parse("0"))
    page = (out / "report.html").read_text(encoding="utf-8")
    return json.loads((out / "report.json").read_text())["labels"], page


def test_labels_of_the_question_count(lacking: Source, tmp_path: Path) -> None:
    labels, page = report(replace(lacking, question=Question(("Old",), ("Male",))), tmp_path / "out")
    assert labels == {
        "of": ["Old", "Male"],
        "splits": {
            "train": {"all": 3, "some": 2, "none": 1},
            "valid": {"all": 1, "some": 1, "none": 1},
            "test": {"all": 1, "some": 0, "none": 0},
        },
    }
    text = " ".join(page.split())
    assert "<p>5 images lack a label of Old, Male. What a model says" in text
    rows = re.findall(r"<tr><td>(\w+)</td><td>(\d)</td><td>(\d)</td><td>(\d)</td></tr>", text)
    assert rows == [("training", "3", "2", "1"), ("validation", "1", "1", "1"), ("test", "1", "0", "0")]


def test_without_a_question_all_labels_do(lacking: Source, tmp_path: Path) -> None:
    labels, page = report(replace(lacking, question=Question()), tmp_path / "out")
    assert labels["of"] == ["Old", "Male", "Hat"]
    assert labels["splits"]["train"] == {"all": 2, "some": 4, "none": 0}
    assert "7 images lack a label of some attribute." in " ".join(page.split())


def test_a_whole_table_is_no_matter(counting_source: Callable[..., Source], tmp_path: Path) -> None:
    labels, page = report(counting_source(10), tmp_path / "out")
    assert all(entry["some"] == entry["none"] == 0 for entry in labels["splits"].values())
    assert "a label of" not in page
