"""Prepared folders, models and checkpoints from strangers: what they say is checked before it is believed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, json_values, replaced
from survival import survives

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.data.tensorfile import TensorFile, write_tensors
from civae_core.errors import DataError
from civae_core.inspection import inspect


def with_header(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return len(text).to_bytes(8, "little") + text + body


def parts(data: bytes) -> tuple[Any, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


# Single files.


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    arrays = {"images": np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4), "x": np.ones((2, 3), np.float32)}
    write_tensors(path, arrays, {"columns": "[]"})
    return path.read_bytes()


def read_all(file: Path) -> None:
    opened = TensorFile(file)
    for name, entry in opened.entries.items():
        array = opened.array(name, entry.dtype.type, entry.shape)
        assert array.nbytes == len(opened.payload(name)) <= file.stat().st_size
        array.sum()


@given(data=st.data())
def test_a_damaged_tensor_file(tensors: bytes, tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(data.draw(damaged(tensors)))
    survives("tensor file", lambda: read_all(file), may_raise=DataError)


@given(data=st.data())
def test_a_tensor_file_with_another_header(tensors: bytes, tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "a.safetensors"
    header, body = parts(tensors)
    file.write_bytes(with_header(data.draw(replaced(header)), body))
    survives("tensor file", lambda: read_all(file), may_raise=DataError)


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "U8", "shape": [2**32, 2**32], "data_offsets": [0, 0]}},
        {"x": {"dtype": "U8", "shape": [2**62, 4], "data_offsets": [0, 0]}},
        {"x": {"dtype": "U8", "shape": [10**30], "data_offsets": [0, 10**30]}},
        {"x": {"dtype": "U8", "shape": [-1, -48], "data_offsets": [0, 48]}},
        {"x": {"dtype": "U8", "shape": [1e400], "data_offsets": [0, 48]}},
        {"x": {"dtype": "U8", "shape": [48.5], "data_offsets": [0, 48]}},
        {"x": {"dtype": "U8", "shape": ["48"], "data_offsets": [0, 48]}},
        {"x": {"dtype": "U8", "shape": [48], "data_offsets": [float("nan"), 48]}},
        {"x": {"dtype": "U8", "shape": [1] * 100, "data_offsets": [0, 1]}},
        {"__metadata__": [1, 2], "x": {"dtype": "U8", "shape": [48], "data_offsets": [0, 48]}},
        b'{"x":' + b"[" * 50_000,
        b'{"x": {"dtype": "U8", "shape": [48], "data_offsets": [0, 48]}, "x": {}}',
        "{}".encode("utf-16"),
    ],
    ids=range(13),
)
def test_absurd_headers(tmp_path: Path, header: Any) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(with_header(header, bytes(48)))
    with pytest.raises(DataError, match=r"damaged|foreign|not a safetensors"):
        survives("tensor file", lambda: read_all(file), may_raise=())


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 99_999_999, 0])
def test_absurd_header_lengths(tmp_path: Path, length: int) -> None:
    """Files are sparse, so that one of plausible length is as long as its header says."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b'{"x":')
    if 10**6 < length < 2**32:
        with file.open("r+b") as opened:
            opened.truncate(length + 8)
    with pytest.raises(DataError):
        survives("tensor file", lambda: TensorFile(file), may_raise=())


# A whole prepared folder.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty faces and their truth, to spoil; each test puts back what it changed."""
    truths = [TruthSpec("Young=flip", {"Young": "flip"})]
    source = faces_source(count=20, seed=0, overlap=0.5, truths=truths, size=32, channels=3)
    out = tmp_path_factory.mktemp("spoilt") / "faces"
    prepare(source, out, workers=1, max_bad=MaxBad.parse("0"))
    return out


def use(folder: Path) -> None:
    """What training and evaluation read of a prepared folder."""
    data = PreparedData.open(folder)
    assert data.fingerprint and len(data.file_names) == len(data)
    for split in ("train", "valid", "test"):
        rows = data.rows(split)
        data.images(rows[:2])
        assert not data.table_NA[rows].isinf().any()
    for attribute in data.attributes:
        shift, scale = attribute.shift_and_scale
        reach = torch.tensor([attribute.low, attribute.high, shift], dtype=torch.float32)
        assert ((reach - shift) / torch.tensor(scale, dtype=torch.float32)).isfinite().all()
        assert len(data.column(attribute.name)) == len(data)
    for truth in data.truth:
        assert not len(truth.rows) or 0 <= int(truth.rows.min()) <= int(truth.rows.max()) < len(data)
        truth.images(torch.arange(min(2, len(truth))))
    json.dumps(inspect(folder), allow_nan=False)


def spoilt(file: Path, make: Callable[[bytes], bytes], read: Callable[[], Any], target: str) -> None:
    before = file.read_bytes()
    try:
        file.write_bytes(make(before))
        survives(target, read, may_raise=DataError)
    finally:
        file.write_bytes(before)


@given(data=st.data())
def test_a_damaged_manifest(small: Path, data: st.DataObject) -> None:
    spoilt(small / "dataset.yml", lambda b: data.draw(damaged(b)), lambda: use(small), "dataset.yml")


@given(data=st.data())
def test_a_manifest_that_says_something_else(small: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        made = data.draw(replaced(yaml.safe_load(before)))
        return json.dumps(made).encode()  # of which YAML is a superset, nearly

    spoilt(small / "dataset.yml", change, lambda: use(small), "dataset.yml")


@given(data=st.data())
def test_a_damaged_file_of_attributes(small: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        return data.draw(damaged(before))[: len(before)].ljust(len(before), b"\0")

    spoilt(small / "attributes.safetensors", change, lambda: use(small), "attributes.safetensors")


@given(data=st.data())
def test_other_numbers_in_the_file_of_attributes(small: Path, data: st.DataObject) -> None:
    """The header fits, but the numbers come from a stranger."""

    def change(before: bytes) -> bytes:
        header, body = parts(before)
        changed = bytearray(body)
        name = data.draw(st.sampled_from([n for n in header if n != "__metadata__" and "images" not in n]))
        start, stop = header[name]["data_offsets"]
        for _ in range(data.draw(st.integers(1, 3))):
            if stop - start >= 8:
                place = start + 8 * data.draw(st.integers(0, (stop - start) // 8 - 1))
                changed[place : place + 8] = data.draw(st.binary(min_size=8, max_size=8))
        return before[: len(before) - len(body)] + bytes(changed)

    spoilt(small / "attributes.safetensors", change, lambda: use(small), "attributes.safetensors")


def test_the_unspoilt_folder_is_read(small: Path) -> None:
    use(small)


def test_a_manifest_cannot_multiply_or_make_objects(small: Path, tmp_path: Path) -> None:
    file, made = small / "dataset.yml", tmp_path / "made"
    before = file.read_text()
    levels = [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    laughs = "\n".join(["source:", "  a0: &a0 [lol]", *levels])
    deep = "source: {a: " + "[" * 20_000
    tag = f"source: !!python/object/apply:os.system ['touch {made}']"
    try:
        for source in (laughs, deep, tag, "source: " + "x" * 2**24):
            rest = [line for line in before.split("\n") if not line.startswith(("source:", "  "))]
            file.write_text("\n".join([*rest, source]))
            with pytest.raises(DataError):
                survives("dataset.yml", lambda: use(small), may_raise=())
    finally:
        file.write_text(before)
    assert not made.exists()


# Models.


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "model.safetensors"
    shutil.copy((trained / "checkpoints" / "last" / "model.safetensors").resolve(), file)
    return file


def load(file: Path) -> None:
    from civae_core.model.stored import load_model

    json.dumps(inspect(file), allow_nan=False)
    stored = load_model(file)
    roles, shape = stored.card.roles, stored.card.preprocessing
    assert len(stored.card.subjects) == 0 or len(stored.card.subjects[0]) == len(roles.inputs)
    y_BCHW = torch.zeros(1, shape["channels"], shape["size"], shape["size"])
    x_BX, t_BT = torch.zeros(1, len(roles.covariates)), torch.zeros(1, len(roles.treatments))
    stored.model.encode(y_BCHW, x_BX, t_BT)


@given(data=st.data())
def test_a_model_with_another_card(model: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        header, body = parts(before)
        card = json.loads(header["__metadata__"]["civae"])
        card["subjects"] = card["subjects"][:2]  # else most changes would fall on them
        card = data.draw(replaced(card))
        header["__metadata__"]["civae"] = json.dumps(card)
        return with_header(header, body)

    spoilt(model, change, lambda: load(model), "model card")


@given(
    text=st.one_of(
        json_values().map(json.dumps), st.text(max_size=20), st.integers(1, 10**5).map(lambda n: "[" * n)
    )
)
def test_a_model_with_any_card(model: Path, text: str) -> None:
    def change(before: bytes) -> bytes:
        header, body = parts(before)
        header["__metadata__"]["civae"] = text
        return with_header(header, body)

    spoilt(model, change, lambda: load(model), "model card")


@given(data=st.data())
def test_a_damaged_model_file(model: Path, data: st.DataObject) -> None:
    spoilt(model, lambda b: data.draw(damaged(b)), lambda: load(model), "model file")


@given(data=st.data())
def test_a_model_file_with_another_header(model: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        header, body = parts(before)
        return with_header(data.draw(replaced(header)), body)

    spoilt(model, change, lambda: load(model), "model file")


def test_the_unspoilt_model_is_read(model: Path) -> None:
    load(model)
