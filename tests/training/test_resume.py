"""A run that was stopped and continued equals one that was not, bit for bit on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.training.loop import train

MakeConfig = Callable[..., Config]


def all_tensors(run: Path) -> dict[str, torch.Tensor]:
    """Average, model and optimiser of a run's last checkpoint."""
    last = run / "checkpoints" / "last"
    average = {f"average.{k}": v for k, v in load_file(last / "model.safetensors").items()}
    return average | load_file(last / "state.safetensors")


def assert_same_bits(first: Path, second: Path) -> None:
    one, other = all_tensors(first), all_tensors(second)
    assert one.keys() == other.keys()
    assert any(name.startswith("optimizer.") for name in one)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# Each differs in something that a resumed run could get wrong: schedules, weights, layouts, statistics, scales.
VARIANTS: dict[str, dict[str, Any]] = {
    "cosine, inverse weights, predictor": {},
    "constant rate, no predictor, no average": {
        "train.lr_decay": "none",
        "model.predictor": False,
        "train.ema_halflife": 0,
    },
    "overlap weights, sigma per channel, β warm-up": {
        "loss.weights": "overlap",
        "model.sigma": "channel",
        "loss.beta_warmup": 200,
    },
    "channels last": {"train.channels_last": True},
    "batch norm, the original's objective": {
        "objective": "original",
        "model.norm": "batch",
        "model.treatment_input": "concat",
    },
    "bf16": {"train.precision": "bf16"},
    "fp16 with its loss scale": {"train.precision": "fp16"},
    "images in memory": {"data.cache": "ram"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_stopping_half_way_changes_no_bit(
    tiny_config: MakeConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tiny_config({"train.images": 256, "train.batch_size": 16, "train.validate_images": 4} | changes)
    whole = train(config, tmp_path / "whole", device="cpu")
    half = train(config, tmp_path / "halves", device="cpu", stop_at=128)
    assert (half.images_seen, half.finished) == (128, False)
    rest = train(config, tmp_path / "halves", device="cpu")
    assert (rest.images_seen, rest.finished) == (whole.images_seen, True) == (256, True)
    assert_same_bits(tmp_path / "whole", tmp_path / "halves")


def test_no_count_needs_to_divide_another(tiny_config: MakeConfig, tmp_path: Path) -> None:
    counts = {"train.images": 250, "train.batch_size": 24, "train.checkpoint_every": 70, "train.log_every": 50}
    config = tiny_config(counts)
    train(config, tmp_path / "whole", device="cpu")
    for stop in (77, 180):
        train(config, tmp_path / "parts", device="cpu", stop_at=stop)
    result = train(config, tmp_path / "parts", device="cpu")
    assert result.images_seen == 264, "the last batch is whole"
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_with_a_constant_rate_a_longer_run_continues_a_shorter_one(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    constant = {"train.lr_decay": "none"}
    train(tiny_config({"train.images": 256} | constant), tmp_path / "long", device="cpu")
    train(tiny_config({"train.images": 128} | constant), tmp_path / "raised", device="cpu")
    train(tiny_config({"train.images": 256} | constant), tmp_path / "raised", device="cpu")
    assert_same_bits(tmp_path / "long", tmp_path / "raised")


def test_seeds_matter(tiny_config: MakeConfig, trained: Path, tmp_path: Path) -> None:
    """What makes the tests above mean something: another seed gives other weights."""
    train(tiny_config({"train.seed": 1}), tmp_path / "other", device="cpu")
    one, other = all_tensors(trained), all_tensors(tmp_path / "other")
    assert not torch.equal(one["model.encoder.stem.weight"], other["model.encoder.stem.weight"])


def test_a_data_folder_may_move(
    tiny_config: MakeConfig, faces: PreparedData, trained: Path, tmp_path: Path
) -> None:
    config = tiny_config()
    train(config, tmp_path / "run", device="cpu", stop_at=256)
    (tmp_path / "moved").symlink_to(faces.path)
    train(tiny_config({"data.path": str(tmp_path / "moved")}), tmp_path / "run", device="cpu")
    assert_same_bits(trained, tmp_path / "run")
