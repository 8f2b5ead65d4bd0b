"""A run that was stopped and continued equals one that was not, bit for bit on the CPU."""

import json
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

SHORT = {
    "train.images": 128,
    "train.batch_size": 16,
    "train.validate_images": 4,
    "train.checkpoint_every": 128,
}


pytestmark = pytest.mark.usefixtures("no_sample_grids")


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
    "overlap weights, σ per channel, β warm-up, images in memory": {
        "loss.weights": "overlap",
        "model.sigma": "channel",
        "loss.beta_warmup": 100,
        "data.cache": "ram",
    },
    "channels last": {"train.channels_last": True},
    "batch norm, the original's objective": {
        "objective": "original",
        "model.norm": "batch",
        "model.treatment_input": "concat",
    },
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_stopping_half_way_changes_no_bit(
    tiny_config: MakeConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tiny_config(SHORT | changes)
    whole = train(config, tmp_path / "whole", device="cpu")
    half = train(config, tmp_path / "halves", device="cpu", stop_at=64)
    assert (half.images_seen, half.finished) == (64, False)
    rest = train(config, tmp_path / "halves", device="cpu")
    assert (rest.images_seen, rest.finished) == (whole.images_seen, True) == (128, True)
    assert_same_bits(tmp_path / "whole", tmp_path / "halves")


def test_the_loss_scale_of_fp16_is_resumed(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(SHORT | {"train.precision": "fp16", "train.images": 48})
    train(config, tmp_path / "whole", device="cpu")
    train(config, tmp_path / "halves", device="cpu", stop_at=16)
    train(config, tmp_path / "halves", device="cpu")
    assert_same_bits(tmp_path / "whole", tmp_path / "halves")


def test_no_count_needs_to_divide_another(tiny_config: MakeConfig, tmp_path: Path) -> None:
    counts = {
        "train.images": 130,
        "train.batch_size": 12,
        "train.checkpoint_every": 35,
        "train.log_every": 25,
    }
    config = tiny_config(SHORT | counts)
    train(config, tmp_path / "whole", device="cpu")
    for stop in (41, 100):
        train(config, tmp_path / "parts", device="cpu", stop_at=stop)
    result = train(config, tmp_path / "parts", device="cpu")
    assert result.images_seen == 132, "the last batch is whole"
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_with_a_constant_rate_a_longer_run_continues_a_shorter_one(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    short = tiny_config(SHORT | {"train.lr_decay": "none", "train.images": 64})
    long = tiny_config(SHORT | {"train.lr_decay": "none", "train.images": 128})
    train(long, tmp_path / "long", device="cpu")
    train(short, tmp_path / "raised", device="cpu")
    train(long, tmp_path / "raised", device="cpu")
    assert_same_bits(tmp_path / "long", tmp_path / "raised")


def test_a_run_that_is_started_from_another_one_s_checkpoint_continues_it(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    """Also if the checkpoint lies in the middle of a line of metrics: the new run measures only its own images."""
    constant = SHORT | {"train.lr_decay": "none", "train.images": 64}
    sums_under_way = {"train.images": 48, "train.log_every": 64, "train.checkpoint_every": 32}
    train(tiny_config(constant | sums_under_way), tmp_path / "other", device="cpu")
    config = tiny_config(constant | {"train.log_every": 32})
    train(config, tmp_path / "whole", device="cpu")
    begin = str(tmp_path / "other" / "checkpoints" / "step-000000032")
    train(config, tmp_path / "run", device="cpu", resume=begin)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")

    measured: dict[str, list[dict[str, Any]]] = {}
    for run in ("whole", "run"):
        text = (tmp_path / run / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        timeless = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
        measured[run] = [line for line in timeless if line["images"] > 32]
    assert measured["run"][0]["images"] == 64
    assert measured["run"] == measured["whole"]


def test_the_comparison_can_fail(tiny_config: MakeConfig, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(tiny_config(SHORT | {"train.seed": seed}), tmp_path / str(seed), device="cpu", stop_at=16)
    with pytest.raises(AssertionError):
        assert_same_bits(tmp_path / "0", tmp_path / "1")


def test_a_data_folder_may_move(tiny_config: MakeConfig, faces: PreparedData, tmp_path: Path) -> None:
    config = tiny_config(SHORT | {"train.images": 32})
    train(config, tmp_path / "stays", device="cpu")
    train(config, tmp_path / "moves", device="cpu", stop_at=16)
    (tmp_path / "elsewhere").symlink_to(faces.path)
    moved = tiny_config(SHORT | {"train.images": 32, "data.path": str(tmp_path / "elsewhere")})
    train(moved, tmp_path / "moves", device="cpu")
    assert_same_bits(tmp_path / "stays", tmp_path / "moves")
