"""Attribute tables and CelebA's lists from strangers: a table that holds what it says, or one error with its line."""

import json
import math
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mutations import NUMBERS, WORDS, damaged, json_values
from survival import survives

from civae_core.data.sources.celeba_lists import read_attributes, read_partition
from civae_core.data.tables import Table, numbered_lines, open_text, read_table
from civae_core.errors import DataError

CSV = b'file_name,split,Male,Age\na.jpg,train,1,31.5\nb/c.jpg,valid,-1,\n"d, e.jpg",test,1,7e2\n'
JSONL = b"""{"file_name": "a.jpg", "split": "train", "Male": true, "Age": 31.5}
{"file_name": "b/c.jpg", "split": "val", "Male": false, "Age": null}
"""
ATTRIBUTES = b"3\nMale Young\n000001.jpg -1 1\n000002.jpg  1 1\n000003.jpg -1 -1\n"
PARTITION = b"000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"


def check(file: Path, data: bytes) -> Table | None:
    file.write_bytes(data)
    table = survives("table", lambda: read_table(file), may_raise=DataError)
    if table is not None:
        assert table.values_NA.shape == (len(table.file_names), len(table.names))
        assert not np.isinf(table.values_NA).any()
        assert len(set(table.file_names)) == len(table.file_names) > 0
        assert len(set(table.names)) == len(table.names) > 0
        assert table.splits_N is None or set(table.splits_N.tolist()) <= {0, 1, 2}
        for name in table.file_names:
            assert not name.startswith("/") and ".." not in name.split("/") and "\0" not in name
            assert name.encode(), "it can be stored"
        for name in table.names:
            assert name.encode() and name.isprintable()
        for kind, values_N in zip(table.kinds, table.values_NA.T, strict=True):
            assert kind == "continuous" or {v for v in values_N.tolist() if not math.isnan(v)} <= {0.0, 1.0}
    return table


@given(data=damaged(CSV))
def test_a_damaged_csv(tmp_path: Path, data: bytes) -> None:
    check(tmp_path / "table.csv", data)


@given(data=damaged(JSONL))
def test_a_damaged_jsonl(tmp_path: Path, data: bytes) -> None:
    check(tmp_path / "table.jsonl", data)


@given(data=st.binary(max_size=80), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".JSONL", ""]))
def test_any_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    check(tmp_path / f"table{suffix}", data)


cells = st.one_of(NUMBERS, WORDS)


@given(
    header=st.lists(cells, min_size=1, max_size=4),
    rows=st.lists(st.lists(cells, min_size=1, max_size=5), max_size=4),
    mark=st.sampled_from([",", ";", "\t"]),
    quoted=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
)
def test_any_cells(
    tmp_path: Path, header: list[str], rows: list[list[str]], mark: str, quoted: bool, end: str, bom: bool
) -> None:
    def line(parts: list[str]) -> str:
        return mark.join('"' + part.replace('"', '""') + '"' if quoted else part for part in parts)

    text = end.join(line(parts) for parts in [["file_name", *header], *rows])
    check(tmp_path / "table.csv", ("\ufeff" * bom + text).encode("utf-8", "surrogatepass"))


@given(
    names=st.lists(st.one_of(st.sampled_from(["split", "Male"]), WORDS), max_size=3, unique=True),
    data=st.data(),
)
def test_any_json_lines(tmp_path: Path, names: list[str], data: st.DataObject) -> None:
    rows = []
    for number in range(data.draw(st.integers(1, 3))):
        file_name = data.draw(st.one_of(st.just(f"{number}.jpg"), WORDS, json_values(deep=False)))
        row = {name: data.draw(json_values(deep=data.draw(st.integers(0, 9)) == 0)) for name in names}
        rows.append({"Age": number, **row, "file_name": file_name})
    check(tmp_path / "table.jsonl", "\n".join(map(json.dumps, rows)).encode())


@given(depth=st.integers(1, 100_000), opening=st.sampled_from(["[", '{"a":', '{"file_name": "a", "b": [']))
def test_deep_json(tmp_path: Path, depth: int, opening: str) -> None:
    assert check(tmp_path / "table.jsonl", opening.encode() * depth) is None


@given(lists=st.tuples(damaged(ATTRIBUTES), damaged(PARTITION)), suffix=st.sampled_from([".txt", ".csv"]))
def test_damaged_lists_of_celeba(tmp_path: Path, lists: tuple[bytes, bytes], suffix: str) -> None:
    files = [tmp_path / f"attr{suffix}", tmp_path / f"partition{suffix}"]
    for file, data in zip(files, lists, strict=True):
        file.write_bytes(data)

    def read() -> Table:
        table = read_attributes(open_text(files[0]), files[0])
        read_partition(open_text(files[1]), files[1], table.file_names)
        return table

    table = survives("CelebA lists", read, may_raise=DataError)
    if table is not None:
        assert set(np.unique(table.values_NA).tolist()) <= {0.0, 1.0}
        assert not any("\0" in name or "/" in name or name in (".", "..") for name in table.file_names)


def test_the_valid_tables_are_read(tmp_path: Path) -> None:
    """Otherwise every damaged table would be refused for the same reason."""
    for name, data in (("a.csv", CSV), ("a.jsonl", JSONL)):
        table = check(tmp_path / name, data)
        assert table is not None and table.names == ("Male", "Age")
    (tmp_path / "attr.txt").write_bytes(ATTRIBUTES)
    with (tmp_path / "attr.txt").open("rb") as opened:
        lists = read_attributes(numbered_lines(opened, tmp_path / "attr.txt"), tmp_path / "attr.txt")
    assert lists.names == ("Male", "Young")
