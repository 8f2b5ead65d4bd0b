"""Signals end training at the next step, after saving; running again continues to the same bits."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from civae_core.config.schema import Config
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.stopping import INTERRUPTED, PREEMPTED, stop_on_signals, stopping_after

SHORT = {"train.images": 96, "train.batch_size": 16, "train.validate_images": 4, "train.checkpoint_every": 32}


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Lets the process receive a signal while the batch after some images is being made."""
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)
    real = TrainingBatches.at

    def install(number: int, images: int) -> None:
        def at(batches: TrainingBatches, images_seen: int) -> Batch:
            if images_seen == images:
                os.kill(os.getpid(), number)
            return real(batches, images_seen)

        monkeypatch.setattr(TrainingBatches, "at", at)

    return install


@pytest.mark.parametrize(
    ("number", "kind", "code", "images"),
    [
        (signal.SIGTERM, PreemptedError, 75, 32),
        (signal.SIGUSR1, PreemptedError, 75, 48),
        (signal.SIGINT, InterruptedRunError, 130, 64),
    ],
)
def test_a_signal_saves_and_stops(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    signal_at: Callable[[int, int], None],
    number: int,
    kind: type[CivaeError],
    code: int,
    images: int,
) -> None:
    """From 48 images, the next step ends on a multiple of checkpoint_every, which is then already saved."""
    config = tiny_config(SHORT)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    signal_at(number, images)
    with pytest.raises(kind, match=f"stopped at {images + 16} images, after saving") as caught:
        train(config, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == code
    assert "same command" in (caught.value.hint or "")
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == handlers
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.splitlines()[-1].endswith(f"ERROR stopped at {images + 16} images, after saving")
    last = tmp_path / "run" / "checkpoints" / "last"
    assert last.readlink().name == f"step-{images + 16:09d}"

    signal_at(number, -1)
    assert train(config, tmp_path / "run", device="cpu").finished
    train(config, tmp_path / "whole", device="cpu")
    for name in ("model.safetensors", "state.safetensors"):
        one, other = load_file(last / name), load_file(tmp_path / "whole" / "checkpoints" / "last" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_signal_during_the_last_step_changes_nothing(
    tiny_config: Callable[..., Config], tmp_path: Path, signal_at: Callable[[int, int], None]
) -> None:
    signal_at(signal.SIGTERM, 80)
    config = tiny_config(SHORT | {"model.pairing": "none"})
    assert train(config, tmp_path / "run", device="cpu").finished


def test_a_signal_during_the_last_step_ends_work_that_has_more_steps(
    tiny_config: Callable[..., Config], tmp_path: Path, signal_at: Callable[[int, int], None]
) -> None:
    signal_at(signal.SIGTERM, 80)
    config = tiny_config(SHORT | {"model.pairing": "none"})
    with pytest.raises(PreemptedError, match="stopped; finished work is kept") as caught, stopping_after():
        train(config, tmp_path / "run", device="cpu")
    assert "same command" in (caught.value.hint or "")
    signal_at(signal.SIGTERM, -1)
    with stopping_after():
        assert train(config, tmp_path / "run", device="cpu").finished


def test_a_request_holds_for_the_blocks_around_it_too() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        assert (inner.reason, outer.reason) == (INTERRUPTED, INTERRUPTED)
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.reason == INTERRUPTED, "the larger reason stays"


def test_ctrl_c_outranks_preemption_and_a_second_one_does_not_wait() -> None:
    with stop_on_signals() as request:
        assert request.reason == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == PREEMPTED
        os.kill(os.getpid(), signal.SIGINT)
        assert request.reason == INTERRUPTED
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_no_signal_is_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def use() -> None:
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_system_without_sigusr1_still_catches_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGUSR1")
    with stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == PREEMPTED
