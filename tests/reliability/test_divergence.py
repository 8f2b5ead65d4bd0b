"""Losses that are no numbers: skipped, counted, and if they go on, set back once with a lower rate, then exit 4."""

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from run_contents import left_by, lines_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from civae_core.config.schema import Config
from civae_core.errors import DivergedError
from civae_core.model_paths import follow
from civae_core.training import bookkeeping, loop
from civae_core.training import learner as learner_module
from civae_core.training.checkpoint import Counters, last_checkpoint, last_good_checkpoint
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import RATE_AFTER_SETBACK, Learner
from civae_core.training.loop import train

MakeConfig = Callable[..., Config]
Spoil = Callable[[Callable[[int], bool]], None]

# 32 steps; checkpoints also fall into a stretch of skipped ones.
LONG = {"train__images": 512, "train__checkpoint_every": 64, "train__log_every": 64, "train__keep": 20}
# 12 steps, of which 4 skipped in a row are too many if the limit is lowered to that.
BRIEF = LONG | {
    "train__images": 48,
    "train__checkpoint_every": 8,
    "train__log_every": 8,
    "train__batch_size": 4,
}


def first_time_from(start: int, before: int = 448) -> Callable[[int], bool]:
    """Whether a batch between `start` and `before` is seen for the first time, as if a lower rate had cured it."""
    seen: Counter[int] = Counter()

    def is_bad(images_seen: int) -> bool:
        seen[images_seen] += 1
        return start <= images_seen < before and seen[images_seen] == 1

    return is_bad


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    last = run / "checkpoints" / "last"
    return load_file(last / "state.safetensors") | {
        f"average.{k}": v for k, v in load_file(last / "model.safetensors").items()
    }


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_it_goes_back_to_the_last_good_state_with_a_lower_rate(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, caplog: pytest.LogCaptureFixture
) -> None:
    config, run = short_config(**LONG), tmp_path / "run"
    spoil(first_time_from(128))
    assert train(config, run, device="cpu").finished
    lines = lines_of(run)
    (event,) = [line for line in lines if "event" in line]
    # 20 steps in a row from 128 on have been skipped at 448; checkpoints after 128 are from amid them.
    assert event == {"images": 448, "event": "diverged", "back_to": 128, "rate_factor": RATE_AFTER_SETBACK}
    assert "448 images: going back to 128, with the learning rate at 25 %" in caplog.text
    before, after = lines[: lines.index(event)], lines[lines.index(event) + 1 :]
    assert sum(line["skipped_steps"] for line in before if "lr" in line) == 20
    trained = [line for line in after if "lr" in line]
    assert [line["images"] for line in trained] == [192, 256, 320, 384, 448, 512]
    assert {line["skipped_steps"] for line in trained} == {0}
    rates = {line["images"]: line["lr"] for line in before if "lr" in line}
    assert trained[0]["lr"] == RATE_AFTER_SETBACK * rates[192]
    assert all(tensor.isfinite().all() for tensor in tensors_of(run).values())

    spoil(first_time_from(128))
    train(config, tmp_path / "stopped", device="cpu", stop_at=448)
    spoil(lambda _: False)
    train(config, tmp_path / "stopped", device="cpu")
    assert_same(tensors_of(run), tensors_of(tmp_path / "stopped"))


def held_by(learner: Learner) -> dict[str, torch.Tensor]:
    """Weights, averages and moments, as this process has them."""
    found = {f"average.{name}": tensor.data for name, tensor in learner.average.named_parameters()}
    for name, parameter in learner.named_parameters().items():
        found[f"model.{name}"] = parameter.data
        moments = learner.optimizer.state[parameter]
        found |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
    return found


def test_two_processes_go_back_together_and_only_the_first_records_it(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both end with the same bits, and with what one process ends with, though only the second saw the bad images."""
    monkeypatch.setattr(bookkeeping, "SKIPPED_IN_A_ROW_LIMIT", 4)
    config, one, two = short_config(**BRIEF), tmp_path / "one", tmp_path / "two"
    spoil(first_time_from(16, before=32))
    train(config, one, device="cpu")

    is_bad, real = first_time_from(16, before=32), loop.set_back
    went_back: list[Learner] = []
    spoil(lambda images_seen: is_bad(images_seen) and os.environ["RANK"] == "1")

    def set_back(*arguments: Any) -> Counters:
        went_back.extend(given for given in arguments if isinstance(given, Learner))
        return real(*arguments)

    def train_and_tell() -> None:
        assert train(config, two, device="cpu").finished
        (learner,) = went_back
        save_file(held_by(learner), tmp_path / os.environ["RANK"])

    monkeypatch.setattr(loop, "set_back", set_back)
    run_ranks(2, train_and_tell)
    first, second = load_file(tmp_path / "0"), load_file(tmp_path / "1")
    assert_same(first, second)
    alone, before = tensors_of(one), load_file(one / "checkpoints" / "step-000000016" / "state.safetensors")

    def distance(other: dict[str, torch.Tensor]) -> float:
        parts = [(other[name] - first[name]).norm() for name in first if name.startswith("model.")]
        return float(torch.stack(parts).norm())

    assert distance(alone) < 1e-3 * distance(before), "the same but for the order of sums"

    def recorded(run: Path) -> list[dict[str, Any]]:
        exact = ("images", "event", "back_to", "rate_factor", "skipped_steps", "lr")
        return [{key: line[key] for key in exact if key in line} for line in lines_of(run)]

    assert recorded(two) == recorded(one)
    assert [line["back_to"] for line in recorded(two) if "event" in line] == [16]
    left = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (one, two)]
    assert left[0] == left[1]
    assert (two / "log.txt").read_text(encoding="utf-8").count("32 images: going back to 16") == 1


def test_before_the_first_checkpoint_it_begins_anew_as_with_that_rate(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil
) -> None:
    """Weights, average, critics, optimiser and metric sums are those of a run with the lower rate from the start."""
    changes = LONG | {"loss__adversary": 1.0, "train__images": 384, "train__checkpoint_every": 384}
    spoil(first_time_from(16))
    train(short_config(**changes), tmp_path / "run", device="cpu")
    assert [line["back_to"] for line in lines_of(tmp_path / "run") if "event" in line] == [0]
    spoil(lambda _: False)
    rate = short_config().train.lr * RATE_AFTER_SETBACK
    train(short_config(**changes, train__lr=rate), tmp_path / "slow", device="cpu")
    assert_same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "slow"))


def test_the_second_time_it_ends_with_code_4_and_all_that_was_measured(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil
) -> None:
    config, run = short_config(**LONG), tmp_path / "run"
    spoil(lambda images_seen: images_seen >= 128)
    for _ in range(2):  # the same command again comes to the same end
        with pytest.raises(
            DivergedError, match=r"20 steps in a row .* at 448 images, again with the learning rate at 25%"
        ) as caught:
            train(config, run, device="cpu")
        assert caught.value.exit_code == 4
        lines = lines_of(run)
        assert [line["images"] for line in lines if "event" in line] == [448]
        skipped = [line["skipped_steps"] for line in lines if "lr" in line]
        assert skipped == [0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
        good = last_good_checkpoint(run / "checkpoints")
        assert good is not None and good.name == "step-000000128"
        assert all(tensor.isfinite().all() for tensor in load_file(good / "model.safetensors").values())
        assert "again with the learning rate" in (run / "log.txt").read_text(encoding="utf-8")


def test_a_kill_amid_the_trouble_does_not_hide_it(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil
) -> None:
    """The number of steps skipped in a row is stored, so that a run continued in the middle of them knows it."""
    config, run = short_config(**LONG), tmp_path / "run"
    spoil(lambda images_seen: images_seen >= 128)
    train(config, run, device="cpu", stop_at=320)
    newest = last_checkpoint(run / "checkpoints")
    assert newest is not None and newest.name == "step-000000320"
    spoil(first_time_from(320))
    assert train(config, run, device="cpu").finished
    assert [line["back_to"] for line in lines_of(run) if "event" in line] == [128]
    with safe_open(run / "checkpoints" / "last" / "state.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["civae_state"])["counters"]["setbacks"] == 1


def test_a_run_killed_just_after_going_back_continues_from_there(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later checkpoint, from amid the trouble, is gone, and `last` names the good one."""
    config, run, real = short_config(**BRIEF), tmp_path / "run", loop.set_back

    def set_back_and_die(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    spoil(lambda images_seen: images_seen >= 16)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bookkeeping, "SKIPPED_IN_A_ROW_LIMIT", 4)
        patched.setattr(loop, "set_back", set_back_and_die)
        train(config, run, device="cpu")
    checkpoints = run / "checkpoints"
    assert {path.name for path in checkpoints.glob("step-*")} == {"step-000000008", "step-000000016"}
    assert follow(checkpoints / "last").resolve().name == "step-000000016"

    spoil(lambda _: False)
    for out in (run, tmp_path / "undisturbed"):
        train(config, out, device="cpu")
    assert left_by(run) == left_by(tmp_path / "undisturbed")


@pytest.mark.parametrize("stopped_at", [128, 192], ids=["before the trouble", "amid it"])
def test_where_one_checkpoint_is_kept_a_better_one_amid_the_trouble_does_not_replace_it(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    """The average moves on while steps are skipped, so that every checkpoint may be the best so far."""
    losses, measure = itertools.count(1_000.0, -1.0), HeldOut.loss
    monkeypatch.setattr(HeldOut, "loss", lambda *at: measure(*at) | {"valid_loss": next(losses)})
    config, run = short_config(**LONG | {"train__keep": 1}), tmp_path / "run"
    checkpoints = run / "checkpoints"
    spoil(lambda images_seen: images_seen >= 128)
    train(config, run, device="cpu", stop_at=stopped_at)
    spoil(first_time_from(128))
    assert train(config, run, device="cpu").finished
    assert [line["back_to"] for line in lines_of(run) if "event" in line] == [128]
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-000000512"], (
        "the next good one pruned"
    )


@pytest.mark.parametrize("from_another", [False, True], ids=["from scratch", "from another run"])
def test_without_any_good_checkpoint_a_continued_run_goes_back_to_where_it_began(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, from_another: bool
) -> None:
    """Its own checkpoint is from amid the trouble, whose skipped steps would count against the second attempt."""
    config, run, began = short_config(**LONG | {"train__keep": 1}), tmp_path / "run", 0
    resume = "auto"
    if from_another:
        resume, began = str(tmp_path / "other"), 64
        train(config, tmp_path / "other", device="cpu", stop_at=began)
    spoil(lambda _: True)
    train(config, run, device="cpu", resume=resume, stop_at=began + 64)
    spoil(first_time_from(began + 64))
    assert train(config, run, device="cpu").finished
    assert [line["back_to"] for line in lines_of(run) if "event" in line] == [began]


@pytest.mark.parametrize("trained_on", [False, True], ids=["gone", "trained on"])
def test_without_the_state_that_a_run_was_started_from_it_ends_as_diverged(
    short_config: MakeConfig, tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch, trained_on: bool
) -> None:
    """It has no good checkpoint; a state that has seen more images than it is none to go back to."""
    monkeypatch.setattr(bookkeeping, "SKIPPED_IN_A_ROW_LIMIT", 4)
    config, other, run = short_config(**BRIEF), tmp_path / "other", tmp_path / "run"
    train(config, other, device="cpu", stop_at=8)
    spoil(lambda images_seen: images_seen >= 8)
    train(config, run, device="cpu", resume=str(other), stop_at=16)
    if trained_on:
        spoil(lambda _: False)
        train(config, other, device="cpu", stop_at=40)
    else:
        shutil.rmtree(other)
    spoil(first_time_from(16))
    with pytest.raises(DivergedError, match="at 24 images with no good checkpoint to go back to") as caught:
        train(config, run, device="cpu")
    assert caught.value.exit_code == 4 and str(other) in caught.value.message
    assert (run / "checkpoints" / "step-000000016").is_dir()


def test_a_loss_that_is_infinite_counts_even_where_its_gradient_is_finite(
    short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = learner_module.objective

    def infinite(*arguments: object) -> object:
        terms = real(*arguments)  # type: ignore[arg-type]
        object.__setattr__(terms, "loss", terms.loss + torch.inf)
        return terms

    monkeypatch.setattr(learner_module, "objective", infinite)
    with pytest.raises(DivergedError, match="6 steps in a row"):
        train(short_config(), tmp_path / "run", device="cpu")
    assert sum(line["skipped_steps"] for line in lines_of(tmp_path / "run") if "lr" in line) == 12
