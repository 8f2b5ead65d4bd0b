"""A yardstick as a file: what is written is read back, and what is not a scorer is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.yardstick import Yardstick, load_yardstick, save_yardstick


def test_what_is_written_is_read_back(scorer: Yardstick, tmp_path: Path) -> None:
    path = tmp_path / "new" / "scorer.safetensors"
    tried = replace(scorer, card=replace(scorer.card, reconstructions={"runs/a": scorer.card.photos}))
    save_yardstick(tried, path)
    found = load_yardstick(path)
    assert (found.card, found.path) == (tried.card, path)
    assert found.fingerprint == scorer.fingerprint and found.attributes == scorer.attributes
    assert not found.networks.training
    y_BCHW = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = scorer.read(y_BCHW), found.read(y_BCHW)
    assert torch.equal(ours.outputs_BA, theirs.outputs_BA)
    assert torch.equal(ours.latent.log_std_BZ, theirs.latent.log_std_BZ)
    assert [file.name for file in path.parent.iterdir()] == ["scorer.safetensors"]


def test_the_fingerprint_is_that_of_the_weights(scorer: Yardstick, tmp_path: Path) -> None:
    save_yardstick(scorer, tmp_path / "a")
    other = load_yardstick(tmp_path / "a")
    with torch.no_grad():
        other.networks.scorer.head.bias[0] += 1e-3
    assert other.fingerprint != scorer.fingerprint
    assert replace(scorer, card=replace(scorer.card, seed=9)).fingerprint == scorer.fingerprint


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as opened:
        return dict(opened.metadata())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1_000])


def be_foreign(path: Path) -> None:
    save_file(load_file(path), path, metadata={"civae": "{}"})


def be_newer(path: Path) -> None:
    save_file(load_file(path), path, metadata=metadata(path) | {"civae_yardstick_format": "99"})


def damage_format(path: Path) -> None:
    save_file(load_file(path), path, metadata=metadata(path) | {"civae_yardstick_format": "one"})


def damage_card(path: Path) -> None:
    kept = metadata(path)
    card = json.loads(kept["civae_yardstick"])
    del card["seed"]
    save_file(load_file(path), path, metadata=kept | {"civae_yardstick": json.dumps(card)})


def lose_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["scorer.head.bias"]
    save_file(tensors, path, metadata=metadata(path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "not a readable safetensors file"),
        (be_foreign, "a safetensors file, but not a scorer"),
        (be_newer, "written in format 99, this version reads up to 1"),
        (damage_format, "its metadata is damaged"),
        (damage_card, "its metadata is damaged"),
        (lose_a_tensor, "does not fit the model: scorer.head.bias is missing"),
    ],
)
def test_what_is_no_scorer_is_refused_by_name(
    scorer: Yardstick, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "scorer.safetensors"
    save_yardstick(scorer, path)
    spoil(path)
    with pytest.raises(DataError, match=message) as caught:
        load_yardstick(path)
    assert str(path) in caught.value.message and caught.value.hint


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such scorer file"):
        load_yardstick(tmp_path / "gone.safetensors")


def test_what_cannot_be_written_is_said(scorer: Yardstick, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CivaeError, match="cannot write"):
        save_yardstick(scorer, tmp_path / "file" / "scorer.safetensors")
