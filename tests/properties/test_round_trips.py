"""What is written is read back: prepared folders, tensor files, and configs as text."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from safetensors.numpy import load_file

from civae_core.attributes import shortest
from civae_core.config import Config, dump_config, load_config
from civae_core.config.schema import DataConfig, LossConfig, ModelConfig, TrainConfig
from civae_core.data import PreparedData, pack
from civae_core.data.images import Preprocessing
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Batch, Source, TruthBatch, TruthSpec
from civae_core.data.tables import Table
from civae_core.data.tensorfile import TensorFile, write_tensors


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("round")


def fresh(room: Path) -> Path:
    """A new folder for every example; the fixture's would be shared."""
    return Path(tempfile.mkdtemp(dir=room))


# Packing.


@dataclass(frozen=True)
class Given:
    """A reader of known pixels."""

    images_NCHW: np.ndarray
    bad: frozenset[int]

    def read(self, rows: range) -> Batch:
        kept = np.array([row for row in rows if row not in self.bad], np.int64)
        held_out = kept[kept % 2 == 1]
        truth = TruthBatch(
            held_out, np.ones((len(held_out), 2), np.float32), 255 - self.images_NCHW[held_out]
        )
        return Batch(kept, self.images_NCHW[kept], [(r, "bad") for r in rows if r in self.bad], (truth,))


# Training flushes subnormal numbers to zero, in this process too; so none are drawn.
NORMAL = {"allow_subnormal": False}
DOSES = st.floats(-1e6, 1e6, width=32, **NORMAL)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, **NORMAL))
def test_the_shortest_decimal_of_a_model_s_number_is_that_number(value: float) -> None:
    assert np.float32(shortest(value)) == np.float32(value)


@pytest.mark.parametrize("typed", [0.0, 0.3, -1.5, 4e-7, 100001.0, 1e30])
def test_what_was_typed_comes_back_from_a_model_s_number(typed: float) -> None:
    assert shortest(float(np.float32(typed))) == typed


@given(
    images_NCHW=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 70), st.sampled_from([1, 3]), st.just(3), st.just(3))
    ),
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1), max_size=5),
    shard_rows=st.sampled_from([1, 7, 64, 10**6]),
    data=st.data(),
)
def test_what_is_packed_is_read_back(
    room: Path, images_NCHW: np.ndarray, names: list[str], shard_rows: int, data: st.DataObject
) -> None:
    count, channels = images_NCHW.shape[:2]
    bad = frozenset(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    missing = st.just(float("nan"))
    old = data.draw(hnp.arrays(np.float32, count, elements=st.one_of(st.sampled_from([0.0, 1.0]), missing)))
    dose = data.draw(hnp.arrays(np.float32, count, elements=st.one_of(DOSES, missing)))
    splits_N = data.draw(hnp.arrays(np.uint8, count, elements=st.integers(0, 2)))
    files = [f"{row}-{names[row % len(names)] if names else ''}" for row in range(count)]
    table = Table(files, ("Old", "Dose"), ("binary", "continuous"), np.stack([old, dose], 1), None, [])
    source = Source(
        "given", {"kind": "given"}, table, splits_N, Preprocessing(size=3, channels=channels),
        Given(images_NCHW, bad), (TruthSpec("Old=1", {"Old": 1.0}),),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "SHARD_BYTES", shard_rows * channels * 9)
        patch.setattr("civae_core.data.prepare.write_report", lambda *_: None)  # tested elsewhere, and slow
        out = fresh(room) / "out"
        prepare(source, out, workers=1, max_bad=MaxBad.parse(str(count)))
    read = PreparedData.open(out)
    kept = [row for row in range(count) if row not in bad]
    assert list(read.file_names) == [files[row] for row in kept]
    assert read.images(torch.arange(len(kept))).numpy().tolist() == images_NCHW[kept].tolist()
    np.testing.assert_array_equal(read.table_NA.numpy(), table.values_NA[kept])
    for code, split in enumerate(("train", "valid", "test")):
        assert read.rows(split).tolist() == np.flatnonzero(splits_N[kept] == code).tolist()
    odd = [place for place, row in enumerate(kept) if row % 2 == 1]
    assert read.truth[0].rows.tolist() == odd
    assert torch.equal(
        read.truth[0].images(torch.arange(len(odd))), 255 - read.images(torch.tensor(odd).long())
    )
    read.verify()


arrays = st.sampled_from([np.uint8, np.float32, np.int64]).flatmap(
    lambda kind: hnp.arrays(
        kind,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        elements=hnp.from_dtype(np.dtype(kind), **(NORMAL if kind is np.float32 else {})),
    )
)


@given(
    tensors=st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"), arrays, min_size=1, max_size=4
    ),
    metadata=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_tensor_files_are_read_back_by_us_and_by_the_library(
    room: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    path = fresh(room) / "a.safetensors"
    write_tensors(path, tensors, metadata)
    ours, theirs = TensorFile(path), load_file(path)
    assert ours.metadata == metadata and set(ours.entries) == set(theirs) == set(tensors)
    for name, tensor in tensors.items():
        read = ours.array(name, tensor.dtype.type, tensor.shape)
        assert read.tobytes() == tensor.tobytes() == theirs[name].tobytes()
        assert read.shape == tensor.shape == theirs[name].shape


# Configs.


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, within its limits where it states some."""
    options = get_args(annotation)
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.one_of(st.integers(0, 300), st.integers(0, 10**15))
    if annotation is float:
        return st.one_of(st.floats(0, 5, allow_subnormal=False), st.floats(1e-12, 1e12))
    if annotation is str:
        return st.text(st.characters(codec="utf-8"), max_size=20)
    if annotation is type(None):
        return st.none()
    if options and all(isinstance(option, str) for option in options):
        return st.sampled_from(options)
    if getattr(annotation, "__origin__", None) is list:
        return st.lists(values_of(options[0]), min_size=1, max_size=4)
    if options:
        return st.one_of(*(values_of(option) for option in options if not isinstance(option, dict)))
    return st.nothing()


def sections(model: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: values_of(field.annotation) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries({}, optional=fields)


names = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=3, max_size=6, unique=True)


@given(
    attributes=names,
    model=sections(ModelConfig),
    loss=sections(LossConfig),
    train=sections(TrainConfig),
    path=st.text(st.characters(codec="utf-8"), max_size=20),
    objective=st.sampled_from(["intact", "cvae", "original"]),
    keep=st.sets(st.sampled_from(["model", "loss", "train"])),
)
def test_a_config_is_read_back_from_its_own_text(
    room: Path,
    attributes: list[str],
    model: dict[str, Any],
    loss: dict[str, Any],
    train: dict[str, Any],
    path: str,
    objective: str,
    keep: set[str],
) -> None:
    values: dict[str, Any] = {
        "objective": objective,
        "data": {
            "path": path,
            "treatment": attributes[:1],
            "covariates": attributes[1:2],
            "descendants": attributes[2:],
        },
    }
    config = None
    for drop in (set(), {"loss"}, {"loss", "model"}):  # rules between keys refuse most random combinations
        chosen = {k: v for k, v in {"model": model, "loss": loss, "train": train}.items() if k in keep - drop}
        try:
            config = Config.model_validate(values | {k: _one_by_one(k, v, values) for k, v in chosen.items()})
            break
        except ValidationError:
            continue
    assume(config is not None)
    assert config is not None
    file = fresh(room) / "train.yml"
    try:
        file.write_text(dump_config(config), encoding="utf-8")
    except ValueError:
        pytest.fail("a config that cannot be written")
    assert load_config([file]) == config


def _one_by_one(section: str, settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The settings that are valid together, taken in order."""
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        try:
            Config.model_validate(values | {section: kept | {key: value}})
        except ValidationError:
            continue
        kept[key] = value
    return kept


def test_the_strategies_know_every_key() -> None:
    for section in (DataConfig, ModelConfig, LossConfig, TrainConfig):
        for name, field in section.model_fields.items():
            assert not values_of(field.annotation).is_empty, name
