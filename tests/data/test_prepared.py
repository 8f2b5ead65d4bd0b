"""Opening prepared folders: access, pickling, selections, and every way a folder can be damaged."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.selection import Selection, parse_selection
from civae_core.data.sources.base import Source
from civae_core.errors import DataError, UsageError

SHARD, ATTRIBUTES = "images-00000.safetensors", "attributes.safetensors"


@pytest.fixture
def folder(counting_source: Callable[..., Source], tmp_path: Path) -> Path:
    prepare(counting_source(50, truths=1), tmp_path / "out", workers=1, max_bad=MaxBad.parse("0"))
    return tmp_path / "out"


def edit(folder: Path, **values: object) -> None:
    manifest = yaml.safe_load((folder / "dataset.yml").read_text())
    (folder / "dataset.yml").write_text(yaml.safe_dump(manifest | values))


def test_a_pickled_copy_reads_the_same(folder: Path) -> None:
    data = PreparedData.open(folder)
    pickled = pickle.dumps(data)
    assert len(pickled) < 500, "the path travels, not the images"
    rows = torch.tensor([3, 1])
    assert torch.equal(pickle.loads(pickled).images(rows), data.images(rows))


def test_images_are_copies(folder: Path) -> None:
    data = PreparedData.open(folder)
    data.images(torch.tensor([0])).fill_(77)
    assert data.images(torch.tensor([0])).unique().tolist() == [0]
    assert data.images(torch.tensor([], dtype=torch.int64)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("row", [-1, 50])
def test_rows_outside_are_refused(folder: Path, row: int) -> None:
    with pytest.raises(IndexError):
        PreparedData.open(folder).images(torch.tensor([row]))
    with pytest.raises(IndexError):
        PreparedData.open(folder).truth[0].images(torch.tensor([row]))


def test_an_unknown_column_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UsageError, match="did you mean Old"):
        PreparedData.open(folder).column("old")


def test_columns_come_in_the_order_asked_for_and_none_has_every_row(folder: Path) -> None:
    data = PreparedData.open(folder)
    names = [attribute.name for attribute in reversed(data.attributes)]
    assert torch.equal(data.columns(names), data.table_NA.flip(1))
    assert data.columns([]).shape == (50, 0) and data.columns([]).dtype == torch.float32
    with pytest.raises(UsageError, match="did you mean Old"):
        data.columns(["old"])


def test_folders_that_are_not_prepared_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder of prepared data"):
        PreparedData.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no dataset\.yml") as caught:
        PreparedData.open(tmp_path)
    assert "prepare-data" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n", "not written by civae prepare-data"),
        ("- a\n", "not written by civae prepare-data"),
        ("a: [\n", "is damaged"),
        ("civae_format: 99\n", "format version 99"),
        ("civae_format: 1\nname: x\n", "is damaged: source"),
        ("!!python/object/apply:os.system ['true']\n", "is damaged"),
    ],
)
def test_damaged_and_foreign_manifests(folder: Path, text: str, message: str) -> None:
    (folder / "dataset.yml").write_text(text)
    with pytest.raises(DataError, match=message):
        PreparedData.open(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder: Path) -> None:
    edit(folder, files={"../x.safetensors": {"bytes": 1, "sha256": "0", "images": 50}})
    with pytest.raises(DataError, match="is damaged: files"):
        PreparedData.open(folder)


@pytest.mark.parametrize("name", [SHARD, ATTRIBUTES])
def test_missing_truncated_and_foreign_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(DataError, match=f"{name} is truncated") as caught:
        PreparedData.open(folder)
    assert "--overwrite" not in str(caught.value.hint), "train and evaluate have no such flag"
    save_file({"weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(DataError, match=name):
        PreparedData.open(folder)
    path.unlink()
    with pytest.raises(DataError, match=f"{name}: No such file"):
        PreparedData.open(folder)


def test_a_shard_of_another_shape_is_refused(folder: Path) -> None:
    save_file({"images": np.zeros((50, 1, 2, 8), np.uint8)}, folder / SHARD)
    files = yaml.safe_load((folder / "dataset.yml").read_text())["files"]
    files[SHARD]["bytes"] = (folder / SHARD).stat().st_size
    edit(folder, files=files)
    with pytest.raises(DataError, match=r"'images' is uint8 \[50, 1, 2, 8\], expected uint8 \[50, 1, 4, 4\]"):
        PreparedData.open(folder)


def test_a_wrong_count_is_refused(folder: Path) -> None:
    edit(folder, images=49)
    with pytest.raises(DataError, match=r"shards hold 50 images, but dataset.yml says 49") as caught:
        PreparedData.open(folder)
    assert str(folder) in (caught.value.hint or "")


def test_verify_notices_a_single_changed_byte(folder: Path) -> None:
    path = folder / SHARD
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not match its checksum") as caught:
        PreparedData.open(folder).verify()
    assert caught.value.hint == f"copy {folder} again, or delete it and prepare the data again"


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("D#test", Selection(Path("D"), "test")),
        ("a/b#c#valid[17]", Selection(Path("a/b#c"), "valid", 17, 18)),
        ("D#train[0:100]", Selection(Path("D"), "train", 0, 100)),
        ("D#train[5:]", Selection(Path("D"), "train", 5, None)),
        ("D#train[:5]", Selection(Path("D"), "train", 0, 5)),
        ("photo.jpg", None),
        ("photo#1.jpg", None),
        ("test", None),
    ],
)
def test_selections_are_parsed(text: str, selection: Selection | None) -> None:
    assert parse_selection(text) == selection


def test_selected_rows(folder: Path) -> None:
    data = PreparedData.open(folder)
    test = data.rows("test").tolist()
    for text, rows in (("#test", test), ("#test[2]", test[2:3]), ("#test[1:3]", test[1:3])):
        selection = parse_selection(f"{folder}{text}")
        assert selection is not None and selection.rows(data).tolist() == rows
    with pytest.raises(UsageError, match="outside the split") as caught:
        Selection(folder, "test", 0, 11).rows(data)
    assert "10 images" in (caught.value.hint or "")


@pytest.mark.parametrize("tail", ["tset", "test[x]", "test[-1]", "test[3:3]", "test[]", ""])
def test_malformed_selections_of_prepared_data_are_refused(folder: Path, tail: str) -> None:
    with pytest.raises(UsageError):
        parse_selection(f"{folder}#{tail}")
