"""Attribute tables: the three formats, the kinds of columns, and errors with file and line."""

import json
from pathlib import Path

import numpy as np
import pytest

from civae_core.data.splits import hashed_splits
from civae_core.data.tables import find_table, read_table
from civae_core.errors import DataError

CSV = "file_name,split,Male,Age\na.jpg,train,1,31.5\nb/c.jpg,valid,0,\nd.jpg,test,1,7\n"
JSONL = """{"file_name": "a.jpg", "split": "train", "Male": true, "Age": 31.5}

{"file_name": "b/c.jpg", "split": "val", "Male": false, "Age": null}
{"Age": 7, "file_name": "d.jpg", "split": "test", "Male": true}
"""


def write(tmp_path: Path, text: str | bytes, name: str = "metadata.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", CSV),
        ("metadata.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("metadata.csv", CSV.replace(",", ";")),
        ("metadata.csv", CSV + "\n  \n"),
        ("metadata.tsv", CSV.replace(",", "\t")),
        (
            "metadata.jsonl",
            JSONL,
        ),
    ],
)
def test_the_same_table_in_every_format(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(write(tmp_path, text, name))
    assert table.file_names == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert table.names == ("Male", "Age")
    assert table.kinds == ("binary", "continuous")
    np.testing.assert_array_equal(table.values_NA, np.array([[1, 31.5], [0, np.nan], [1, 7]], np.float32))
    assert table.splits_N is not None and table.splits_N.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["-1", "1", "1"], "binary", [0, 1, 1]),
        (["0", "1", ""], "binary", [0, 1, np.nan]),
        (["True", "false", "TRUE"], "binary", [1, 0, 1]),
        (["yes", "no", "n/a"], "binary", [1, 0, np.nan]),
        (["-1", "-1", "-1"], "binary", [0, 0, 0]),
        (["-1", "0", "1"], "continuous", [-1, 0, 1]),
        (["3", "7", "3"], "continuous", [3, 7, 3]),
        (["1e-3", "0.25", "-2"], "continuous", [0.001, 0.25, -2]),
    ],
)
def test_kinds_of_columns(tmp_path: Path, cells: list[str], kind: str, values: list[float]) -> None:
    rows = "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(cells))
    table = read_table(write(tmp_path, "file_name,a\n" + rows))
    assert table.kinds == (kind,)
    np.testing.assert_allclose(table.values_NA[:, 0], np.array(values, np.float32))
    assert table.splits_N is None


def test_text_and_empty_columns_are_left_out_with_a_note(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "file_name,who,a,gone\n1.jpg,Ann,1,\n2.jpg,Bob,0,\n"))
    assert table.names == ("a",)
    assert any("who" in note and "'Ann'" in note and "line 2" in note for note in table.notes)
    assert any("gone" in note and "empty" in note for note in table.notes)
    assert table.left_out == {"who": "it contains text, such as 'Ann' in line 2", "gone": "it is empty"}


def test_two_odd_values_stay_numbers_with_a_note(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "file_name,a\n1.jpg,1\n2.jpg,2\n"))
    assert table.kinds == ("continuous",) and any("1 and 2" in note for note in table.notes)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_what_may_be_categories_stays_numbers_with_a_note(tmp_path: Path, name: str) -> None:
    columns: dict[str, list[float]] = {
        "old": [-1, 0, 1],
        "race": [0, 1, 2, 3, 4],
        "decade": list(range(10)),
        "age": list(range(20, 31)),
        "share": [0, 0.5, 1],
        "male": [0, 1],
    }
    rows = [{c: values[n % len(values)] for c, values in columns.items()} for n in range(30)]
    lines = {
        "metadata.csv": [
            f"file_name,{','.join(columns)}",
            *(f"{n}.jpg,{','.join(map(str, row.values()))}" for n, row in enumerate(rows)),
        ],
        "metadata.jsonl": [json.dumps({"file_name": f"{n}.jpg"} | row) for n, row in enumerate(rows)],
    }
    table = read_table(write(tmp_path, "\n".join(lines[name]) + "\n", name))
    assert table.kinds == ("continuous",) * 5 + ("binary",)
    assert [note.partition(" and was treated as continuous")[0] for note in table.notes] == [
        "Column old contains only 3 different whole numbers (-1 to 1)",
        "Column race contains only 5 different whole numbers (0 to 4)",
        "Column decade contains only 10 different whole numbers (0 to 9)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file_name,a\n", "has no rows"),
        ("file_name\n1.jpg\n", "no attribute columns$"),
        (
            "file_name,who\n1.jpg,Ann\n",
            "no attribute columns that can be used: who was left out: .* 'Ann' in",
        ),
        ("filename,a\n1.jpg,1\n", r":1: no column file_name \(is it filename\?\)"),
        ("file_name,a,a\n1.jpg,1,0\n", ":1: column a appears twice"),
        ("file_name,a\n1.jpg,1\n2.jpg\n", ":3: 1 cells for 2 columns"),
        ("file_name,a\n1.jpg,1\n1.jpg,0\n", r":3: 1.jpg is already in line 2"),
        ("file_name,a\n1.jpg,1\n./1.jpg,0\n", r":3: 1.jpg is already in line 2"),
        ("file_name,a\n../1.jpg,1\n", ":2: file_name '../1.jpg' leaves the image folder"),
        ("file_name,a\n/etc/1.jpg,1\n", "leaves the image folder"),
        ("file_name,a\nx/..\\..\\1.jpg,1\n", "leaves the image folder"),
        ("file_name,a\nC:\\1.jpg,1\n", "leaves the image folder"),
        ("file_name,a\n,1\n", ":2: file_name is empty"),
        ("file_name,a\n1.jpg,1\n2.jpg,1\n3.jpg,O\n", ":4: a is 'O', not a number"),
        ("file_name,a\n1.jpg,inf\n", ":2: a is infinite"),
        ("file_name,a\n1.jpg,1e300\n", ":2: a is infinite or too large"),
        ("file_name,a,split\n1.jpg,1,tain\n", ":2: split is 'tain'"),
        ('file_name,a\n"1.jpg,1\n', ":2: "),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a"\n', ":1: not a JSON object"),
        ("[1]\n", ":1: not a JSON object"),
        ('{"file_name": "a", "x": 1}\n{"file_name": "b"}\n', ":2: key 'x' is not in every line"),
        ('{"file_name": "a", "x": [1]}\n', ":1: x is not a number"),
        ('{"file_name": 3, "x": 1}\n', ":1: file_name is 3, not text"),
    ],
)
def test_errors_in_json_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text, "metadata.jsonl"))


def test_other_encodings_are_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_table(write(tmp_path, "file_name,a\nJürgen.jpg,1\n".encode("latin-1")))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_table(tmp_path / "none.csv")


def test_finding_the_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        find_table(tmp_path)
    write(tmp_path, "x", "1.jpg")
    with pytest.raises(DataError, match="has no table"):
        find_table(tmp_path)
    other = write(tmp_path, CSV, "labels.tsv")
    assert find_table(tmp_path) == other
    (tmp_path / "._labels.tsv").write_bytes(b"\0\5\x16\7 Mac OS X")
    assert find_table(tmp_path) == other
    write(tmp_path, CSV, "labels.csv")
    with pytest.raises(DataError, match="several tables"):
        find_table(tmp_path)
    named = write(tmp_path, CSV, "metadata.jsonl")
    assert find_table(tmp_path) == named


def test_hashed_splits_are_80_10_10_stable_and_seeded() -> None:
    names = [f"{number}.jpg" for number in range(5000)]
    splits_N = hashed_splits(names, 0)
    shares = np.bincount(splits_N, minlength=3) / len(names)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    np.testing.assert_array_equal(hashed_splits(names[100:], 0), splits_N[100:])
    assert (hashed_splits(names, 1) != splits_N).any()
