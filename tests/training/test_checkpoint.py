"""Checkpoints are whole or absent, keep what they promise, and say what is wrong with a bad one."""

import errno
import json
import os
import re
import resource
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import civae_core
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.errors import CivaeError, DataError
from civae_core.model import stored
from civae_core.model.stored import ModelCard
from civae_core.model_paths import find_model_file
from civae_core.training.checkpoint import (
    Counters,
    clear_unfinished,
    last_checkpoint,
    last_good_checkpoint,
    mend_links,
    restore_checkpoint,
    save_checkpoint,
)
from civae_core.training.device import Compute
from civae_core.training.learner import Learner
from civae_core.training.setup import assign_roles, make_model

MakeConfig = Callable[..., Config]


def make_learner(config: Config, data: PreparedData) -> Learner:
    roles = assign_roles(config, data)
    compute = Compute(torch.device("cpu"), config.train.precision, channels_last=False)
    return Learner(make_model(config, roles, data), config, roles, compute)


@pytest.fixture
def learner(tiny_config: MakeConfig, faces: PreparedData) -> Learner:
    return make_learner(tiny_config({"train.precision": "fp32"}), faces)


@pytest.fixture
def save(learner: Learner, faces: PreparedData, tmp_path: Path) -> Callable[..., Path]:
    """Saves the learner into `tmp_path` as if it had seen some number of images."""

    def make(images: int, keep: int = 3, is_best: bool = False) -> Path:
        identity = {"name": faces.name, "path": str(faces.path), "fingerprint": faces.fingerprint}
        card = ModelCard(
            learner.config, learner.roles, faces.preprocessing, images, identity, [[1.0, 1.0, 0.5]]
        )
        counters = Counters(images, images, 1.0)
        return save_checkpoint(tmp_path, learner, card, counters, keep=keep, is_best=is_best)

    return make


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A trained run's last checkpoint, to be damaged."""
    return Path(shutil.copytree(trained / "checkpoints" / "last", tmp_path / "step-000000512"))


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    """Changes tensors and metadata of a safetensors file."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    tensors = load_file(file)
    change(tensors, metadata)
    save_file(tensors, file, metadata=metadata)


def target(link: Path) -> str:
    return str(link.readlink())


def folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if not p.is_symlink())


def test_the_last_few_and_the_best_stay(save: Callable[..., Path], tmp_path: Path) -> None:
    for images in (32, 64, 96, 128, 160):
        save(images, keep=2, is_best=images == 64)
    assert folders(tmp_path) == ["step-000000064", "step-000000128", "step-000000160"]
    assert target(tmp_path / "last") == "step-000000160"
    assert target(tmp_path / "best") == "step-000000064", "relative, so that a run can be moved"
    save(192, keep=1, is_best=True)
    assert folders(tmp_path) == ["step-000000192"]


def test_the_newest_is_found_by_number_not_by_spelling(save: Callable[..., Path], tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for images in (999_999_968, 1_000_000_000):
        save(images, keep=1)
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-1000000000"


def test_checkpoints_are_as_readable_as_other_files(save: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    plain = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    for file in save(32).iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == plain, file.name


def test_saving_again_replaces(save: Callable[..., Path], learner: Learner, tmp_path: Path) -> None:
    save(32)
    with torch.no_grad():
        learner.model.encoder.looks.stem.weight.fill_(0.25)
    state = load_file(save(32) / "state.safetensors")
    assert (state["model.encoder.looks.stem.weight"] == 0.25).all()
    assert folders(tmp_path) == ["step-000000032"]


def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    """The real library fails for real, by a limit on the size of files."""
    save(32, is_best=True)
    before = {p: p.read_bytes() for p in (tmp_path / "step-000000032").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CivaeError, match=r"cannot write .*step-000000064: File too large") as caught:
            save(64, is_best=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert folders(tmp_path) == ["step-000000032"]
    assert target(tmp_path / "last") == target(tmp_path / "best") == "step-000000032"
    assert {p: p.read_bytes() for p in (tmp_path / "step-000000032").iterdir()} == before


def test_no_space_says_what_to_do(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stored, "save_file", full)
    with pytest.raises(CivaeError, match="No space left on device") as caught:
        save(32)
    assert "free some space" in (caught.value.hint or "")
    assert folders(tmp_path) == []


def test_what_a_kill_left_behind_is_ignored_and_cleared(save: Callable[..., Path], tmp_path: Path) -> None:
    whole = save(32, is_best=True)
    shutil.copytree(whole, tmp_path / ".writing-step-000000064")
    (tmp_path / ".writing-last").symlink_to("step-000000064")
    assert last_checkpoint(tmp_path) == whole
    clear_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", whole.name]


def test_a_checkpoint_is_whole_while_another_of_its_count_replaces_it(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save(32, is_best=True)
    rename, before = Path.rename, (whole / "state.safetensors").read_bytes()

    def killed(self: Path, to: Path) -> Path:
        if self.name == f".writing-{whole.name}":
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(32)
    monkeypatch.undo()
    found = last_checkpoint(tmp_path)
    assert found is not None and (found / "state.safetensors").read_bytes() == before
    clear_unfinished(tmp_path)
    assert last_checkpoint(tmp_path) == whole and target(tmp_path / "last") == whole.name
    assert (whole / "state.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", whole.name]


@pytest.mark.parametrize("stage", ["rename", "rmtree"])
def test_a_disk_that_fails_while_a_checkpoint_is_replaced_costs_none(
    stage: str, save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk fails like this if another host has one of its files open."""
    whole = save(32, is_best=True)
    rename, rmtree = Path.rename, shutil.rmtree

    def fails(self: Path, to: Path) -> Path:
        if stage == "rename" and self.name == f".writing-{whole.name}":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, to)

    def stuck(path: Path, ignore_errors: bool = False) -> None:
        if stage == "rmtree" and "replaced" in path.name and not ignore_errors:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(Path, "rename", fails)
    monkeypatch.setattr(shutil, "rmtree", stuck)
    if stage == "rename":
        with pytest.raises(CivaeError, match="Input/output error"):
            save(32)
    else:
        save(32)
    monkeypatch.undo()
    assert last_checkpoint(tmp_path) == whole and target(tmp_path / "last") == whole.name
    assert (whole / "state.safetensors").is_file()
    clear_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", whole.name]


def test_links_that_a_kill_kept_from_moving_are_mended(save: Callable[..., Path], tmp_path: Path) -> None:
    save(32, is_best=True)
    newest = save(64, is_best=True)
    for link in ("last", "best"):
        (tmp_path / link).unlink()
    (tmp_path / "best").symlink_to("step-000000032")
    assert last_checkpoint(tmp_path) == newest
    mend_links(tmp_path, Counters(64, 64, 1.0))
    assert target(tmp_path / "last") == target(tmp_path / "best") == newest.name


def test_where_no_link_can_be_made_a_file_names_the_checkpoint(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", refused)
    for images in (32, 64, 96, 128):
        newest = save(images, keep=1, is_best=images == 64)
    best = tmp_path / "step-000000064"
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == [best.name, newest.name]
    for link, folder in (("last", newest), ("best", best)):
        assert (tmp_path / link).is_file()
        assert find_model_file(tmp_path / link) == folder / "model.safetensors"
    (tmp_path / ".writing-last").write_text(newest.name, encoding="utf-8")
    clear_unfinished(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))
    assert last_checkpoint(tmp_path) == newest


def test_restoring_gives_every_tensor_back(learner: Learner, copy: Path, trained: Path) -> None:
    counters = restore_checkpoint(copy, learner)
    assert counters.images_seen == 512
    assert counters.best_loss is not None
    state = load_file(copy / "state.safetensors")
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(tensor, state[f"model.{name}"])
    for name, tensor in learner.average.state_dict().items():
        assert torch.equal(tensor, load_file(copy / "model.safetensors")[name])
    moments = {n: learner.optimizer.state[p] for n, p in learner.model.named_parameters()}
    assert all(torch.equal(m[key], state[f"optimizer.{n}.{key}"]) for n, m in moments.items() for key in m)
    assert len(moments["encoder.looks.stem.weight"]) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("length", [0, 6, 1000, -1000])
def test_a_truncated_file_is_named(learner: Learner, copy: Path, name: str, length: int) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:length])
    with pytest.raises(DataError, match=rf"{name}: not a readable safetensors file") as caught:
        restore_checkpoint(copy, learner)
    assert caught.value.exit_code == 3
    assert caught.value.hint


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
def test_a_missing_file_is_named(learner: Learner, copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DataError, match=name):
        restore_checkpoint(copy, learner)


def test_a_foreign_file_is_refused(learner: Learner, copy: Path) -> None:
    save_file({"weight": torch.zeros(3)}, copy / "model.safetensors")
    with pytest.raises(DataError, match=r"model.safetensors: a safetensors file, but not a civae model"):
        restore_checkpoint(copy, learner)


def test_a_foreign_state_is_refused(learner: Learner, copy: Path) -> None:
    save_file({"weight": torch.zeros(3)}, copy / "state.safetensors")
    with pytest.raises(DataError, match=r"state.safetensors: not a training state of this version"):
        restore_checkpoint(copy, learner)


def test_another_shape_is_named_with_both_shapes(
    tiny_config: MakeConfig, faces: PreparedData, copy: Path
) -> None:
    other = make_learner(tiny_config({"model.latent": 8, "train.precision": "fp32"}), faces)
    with pytest.raises(
        DataError, match=r"state.safetensors: .*appearance.0.weight has shape \[256, 72\], .* \[256, 68\]"
    ):
        restore_checkpoint(copy, other)


def test_other_attributes_of_the_same_number_are_refused(
    tiny_config: MakeConfig, faces: PreparedData, copy: Path
) -> None:
    swapped = {"data.treatment": ["Male"], "data.covariates": ["Young", "Skin_Tone"]}
    other = make_learner(tiny_config({"train.precision": "fp32"} | swapped), faces)
    with pytest.raises(DataError, match=r"are Young \| Male, Skin_Tone, but the config's are Male \| Young"):
        restore_checkpoint(copy, other)


DAMAGES = [
    lambda metadata: metadata.pop("civae_state"),
    lambda metadata: metadata.update(civae_state="{"),
    lambda metadata: metadata.update(civae_state="[]"),
    lambda metadata: metadata.update(civae_state='{"counters": {"images": 3}, "scaler": {}}'),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_counters_are_named(
    learner: Learner, copy: Path, damage: Callable[[dict[str, str]], None]
) -> None:
    rewrite(copy / "state.safetensors", lambda _, metadata: damage(metadata))
    with pytest.raises(DataError, match=r"state.safetensors: not a training state of this version"):
        restore_checkpoint(copy, learner)


def test_a_moment_of_another_shape_is_named(learner: Learner, copy: Path) -> None:
    def shorten(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        tensors["optimizer.encoder.looks.stem.bias.exp_avg"] = torch.zeros(3)

    rewrite(copy / "state.safetensors", shorten)
    with pytest.raises(
        DataError, match=r"state.safetensors: .*encoder.looks.stem.bias.exp_avg has shape \[3\]"
    ):
        restore_checkpoint(copy, learner)


TALLIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a sum too many": lambda tally: torch.cat([tally, tally[:1]]),
    "one sum for all": lambda tally: tally[-4:],
    "no row": lambda tally: tally[-1],
    "too short for its counts": lambda tally: tally[-2:],
    "a count that is no number": lambda tally: torch.cat([tally[:-1], torch.tensor([torch.nan])]),
    "a count without end": lambda tally: torch.cat([tally[:-1], torch.tensor([torch.inf])]),
    "a negative count": lambda tally: torch.cat([tally[:-1], torch.tensor([-1.0])]),
    "another type": lambda tally: tally.double(),
}


@pytest.mark.parametrize("damage", TALLIES.values(), ids=TALLIES.keys())
def test_a_damaged_tally_is_named(
    learner: Learner, copy: Path, damage: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    rewrite(
        copy / "state.safetensors",
        lambda tensors, _: tensors.update(tally=damage(tensors["tally"]).clone()),
    )
    with pytest.raises(DataError, match=r"state.safetensors: not a training state of .* \(tally "):
        restore_checkpoint(copy, learner)


@pytest.mark.parametrize("name", [*TALLIES][2:])
def test_a_setback_names_a_damaged_tally_too(copy: Path, name: str) -> None:
    """It counts the steps skipped in a row without knowing how many sums a tally has."""
    assert last_good_checkpoint(copy.parent) == copy
    rewrite(
        copy / "state.safetensors",
        lambda tensors, _: tensors.update(tally=TALLIES[name](tensors["tally"]).clone()),
    )
    with pytest.raises(DataError, match=r"state.safetensors: not a training state of .* \(tally "):
        last_good_checkpoint(copy.parent)


def test_a_state_can_go_on_in_another_precision(
    tiny_config: MakeConfig, faces: PreparedData, copy: Path
) -> None:
    scaled = make_learner(tiny_config({"train.precision": "fp16"}), faces)
    assert restore_checkpoint(copy, scaled).images_seen == 512
    with safe_open(copy / "state.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["civae_state"])["scaler"] == {}


def test_nothing_is_ever_unpickled() -> None:
    sources = list(Path(civae_core.__file__).parents[1].glob("civae_*/**/*.py"))
    assert len(sources) > 50
    forbidden = re.compile(
        r"torch\.load\((?!.*weights_only=True)|^\s*(import|from) (c?pickle|dill|joblib|shelve)\b", re.M
    )
    assert [path.name for path in sources if forbidden.search(path.read_text(encoding="utf-8"))] == []
