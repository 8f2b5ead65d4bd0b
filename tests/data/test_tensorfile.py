"""Safetensors files: agreement with the reference library, and every way a file can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from civae_core.data.tensorfile import Stream, TensorFile, write_tensors
from civae_core.errors import DataError

TENSORS = {
    "a": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "b": np.array([1.5, np.nan], np.float32),
    "c": np.array([], np.int64),
}


def test_the_reference_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    pieces = [memoryview(b"\x00\x01"), memoryview(b"\x02\x03\x04\x05")]
    write_tensors(path, {**TENSORS, "a": Stream(np.dtype(np.uint8), (2, 3), pieces)}, {"note": "é"})
    for name, array in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(array, TENSORS[name])
    with safetensors.safe_open(path, "np") as opened:
        assert opened.metadata() == {"note": "é"}


def test_what_the_reference_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path, {"k": "v"})
    file = TensorFile(path)
    assert file.metadata == {"k": "v"}
    np.testing.assert_array_equal(file.array("a", np.uint8, (None, 3)), TENSORS["a"])
    np.testing.assert_array_equal(file.array("b", np.float32, (2,)), TENSORS["b"])
    assert file.array("c", np.int64, (None,)).shape == (0,)


def test_the_mapped_file_cannot_be_written_to(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", TENSORS)
    with pytest.raises(ValueError, match="read-only"):
        TensorFile(tmp_path / "x").array("a", np.uint8, (2, 3))[0] = 1


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", TENSORS, {"k": "v", "j": "w"})
    write_tensors(tmp_path / "y", dict(reversed(TENSORS.items())), {"j": "w", "k": "v"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_short_stream_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="announced"):
        write_tensors(tmp_path / "x", {"a": Stream(np.dtype(np.uint8), (3,), [b"12"])})
    assert list(tmp_path.iterdir()) == []


def header(**tensors: object) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 not a tensor file at all", "not a safetensors file"),
        (b"\x08", "not a safetensors file"),
        ((200).to_bytes(8, "little") + b"{", "truncated"),
        (header(a={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}) + b"12", "truncated"),
        (header(a={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}) + b"12345", "1 bytes too long"),
        (header(a={"dtype": "U8", "shape": [5], "data_offsets": [0, 4]}) + b"1234", "overlap or leave gaps"),
        (header(a={"dtype": "U8", "shape": [4], "data_offsets": [1, 5]}) + b"12345", "overlap or leave gaps"),
        (header(a={"dtype": "Q9", "shape": [4], "data_offsets": [0, 4]}) + b"1234", "foreign header"),
        (header(a=[1, 2]), "foreign header"),
        ((4).to_bytes(8, "little") + b"{,,}", "foreign header"),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        TensorFile(path)
    assert str(path) in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        TensorFile(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "dtype", "shape"), [("z", np.uint8, (2, 3)), ("a", np.float32, (2, 3)), ("a", np.uint8, (2, 4))]
)
def test_an_unexpected_tensor_is_refused(
    tmp_path: Path, name: str, dtype: type, shape: tuple[int, ...]
) -> None:
    write_tensors(tmp_path / "x", TENSORS)
    with pytest.raises(DataError, match=f"'{name}'"):
        TensorFile(tmp_path / "x").array(name, dtype, shape)
