"""Two and three processes: one gradient, one sequence of images, one writer; another number of them can go on."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import COUNT, MakeLearner, assert_near, batch, gradients_of
from ranks import run_ranks
from safetensors.torch import load_file
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from civae_core.config import Config
from civae_core.data.batches import Batch
from civae_core.training import bookkeeping
from civae_core.training.distributed import _this_life, joined
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import Learner
from civae_core.training.loop import train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")

MakeConfig = Callable[..., Config]

PATIENCE_S = 240


def share_of(whole: Batch, rank: int, world_size: int) -> Batch:
    return Batch(**{name: values[rank::world_size] for name, values in vars(whole).items()})


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_and_parts_add_up_to_one_gradient_exchanged_once(
    make_learner: MakeLearner, world_size: int
) -> None:
    whole, partly = batch(count=12), batch(seed=9, count=3)
    alone = make_learner()
    alone._add_gradients(whole, 0, partly, 1)
    expected = gradients_of(alone)

    def work() -> list[tuple[dict[str, Any], int]]:
        found = []
        with joined("cpu") as processes:
            for parts in (1, 12 // world_size // 2):
                learner = make_learner()
                learner.wrap(compiled=False, distributed=True)
                exchanged: list[int] = []

                def hook(state: list[int], bucket: GradBucket) -> Future[torch.Tensor]:
                    state.append(bucket.buffer().numel())
                    return allreduce_hook(None, bucket)  # type: ignore[arg-type]

                learner.pass_through.register_comm_hook(exchanged, hook)  # type: ignore[operator]
                rank = processes.rank
                mine = share_of(whole, rank, world_size), share_of(partly, rank, world_size)
                learner._add_gradients(mine[0], 0, mine[1], parts)
                gradients = {name: value.numpy() for name, value in gradients_of(learner).items()}
                found.append((gradients, sum(exchanged)))
        return found

    numbers = sum(values.numel() for values in expected.values())
    for found in run_ranks(world_size, work):
        for gradients, exchanged in found:
            assert_near(expected, {name: torch.from_numpy(value) for name, value in gradients.items()})
            assert exchanged == numbers, "each gradient goes round once a step, however many parts there are"


def test_constants_are_sent_once_and_batch_statistics_at_every_step(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    send = DistributedDataParallel._sync_buffers
    monkeypatch.setattr(DistributedDataParallel, "_sync_buffers", lambda wrapped: sent.append(send(wrapped)))

    def work() -> list[tuple[list[float], int]]:
        found = []
        with joined("cpu") as processes:
            for norm in ("group", "batch"):
                sent.clear()
                learner = make_learner(model={"norm": norm})
                learner.model.x_shift += processes.rank
                learner.wrap(compiled=False, distributed=True)
                for step in range(2):
                    learner.step(batch(step), step * COUNT)
                found.append((learner.model.x_shift.tolist(), len(sent)))
        return found

    first = make_learner().model.x_shift.tolist()
    assert run_ranks(2, work) == [[(first, 0), (first, 2)]] * 2


IMAGES = {
    "train.images": 72,
    "train.batch_size": 12,
    "train.log_every": 24,
    "train.checkpoint_every": 24,
    "train.sample_every": 10_000,
    "train.validate_images": 4,
    "train.lr_warmup": 0,
}


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a process learned from at each step, and the checkpoints that it wrote."""
    notes: list[Any] = []
    step, save = Learner.step, bookkeeping.save_checkpoint

    def noting_step(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
        # An image is told apart by its pixels and its noise: unmirrored, mirrored or repeated, no two are alike.
        notes.append(
            (seen, [values.tolist() for values in (made.y_BCHW.sum((1, 2, 3)), made.noise_BZ[:, 0])])
        )
        step(learner, made, seen, partly)

    def noting_save(*args: Any, **more: Any) -> Path:
        notes.append("saved")
        return save(*args, **more)

    monkeypatch.setattr(Learner, "step", noting_step)
    monkeypatch.setattr(bookkeeping, "save_checkpoint", noting_save)
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)
    return notes


def images_by_step(ranks: list[list[Any]]) -> dict[int, list[tuple[float, float]]]:
    """What all processes together learned from at each step, in the order of the common batch."""
    steps: dict[int, list[tuple[float, float]]] = {}
    for notes in zip(*([note for note in rank if note != "saved"] for rank in ranks), strict=True):
        seen = {note[0] for note in notes}
        assert len(seen) == 1, "all are at the same step"
        shares = [list(zip(*note[1], strict=True)) for note in notes]
        steps[seen.pop()] = [image for images in zip(*shares, strict=True) for image in images]
    return steps


def test_another_number_of_processes_goes_on_with_the_same_images(
    tiny_config: MakeConfig, tmp_path: Path, noted: list[Any]
) -> None:
    """Two processes begin, three continue in two parts each, and one ends; compared with one that did it all."""
    run, whole = tmp_path / "run", tmp_path / "whole"

    def stretch(stop_at: int, **changes: Any) -> Callable[[], list[Any]]:
        def work() -> list[Any]:
            noted.clear()
            train(tiny_config(IMAGES | changes), run, device="cpu", stop_at=stop_at)
            return noted

        return work

    ranks = run_ranks(2, stretch(24))
    steps = images_by_step(ranks)
    assert [rank.count("saved") for rank in ranks] == [1, 0]
    ranks = run_ranks(3, stretch(48, **{"train.accumulate": 2}))
    steps |= images_by_step(ranks)
    assert [rank.count("saved") for rank in ranks] == [1, 0, 0]
    steps |= images_by_step([stretch(72)()])
    noted.clear()
    train(tiny_config(IMAGES), whole, device="cpu")
    assert sorted(steps) == [0, 12, 24, 36, 48, 60]
    expected = images_by_step([noted])
    assert steps == expected
    weights = [load_file(out / "checkpoints" / "last" / "model.safetensors") for out in (run, whole)]
    for name, values in weights[0].items():
        torch.testing.assert_close(values, weights[1][name], rtol=1e-2, atol=2e-3, msg=name)


def _train_and_die_once(config: Config, out: Path, notes: Path) -> int:
    """A worker under torchrun; in its first life, the second one is killed at its third step."""
    step = Learner.step
    life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    begun: list[int] = []
    if life and os.environ["RANK"] == "1":
        time.sleep(1)  # the first looks for the second while there are only traces of its last life

    def dying_step(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
        if not begun:
            begun.append(seen)
            (notes / f"life {life} of {os.environ['RANK']} begins at {seen}").touch()
        if os.environ["RANK"] == "1" and life == 0 and seen == 36:
            os.kill(os.getpid(), signal.SIGKILL)
        step(learner, made, seen, partly)

    Learner.step = dying_step  # type: ignore[method-assign]
    HeldOut.save_grid = lambda *_: None  # type: ignore[method-assign,assignment]
    return train(config, out, device="cpu").images_seen


@pytest.mark.parametrize(
    ("hosts", "restarts", "name"), [("1", "0", "civae 0"), ("1", "2", "civae 2"), ("2", "2", "civae 0")]
)
def test_a_life_is_named_where_all_processes_count_alike(
    monkeypatch: pytest.MonkeyPatch, hosts: str, restarts: str, name: str
) -> None:
    monkeypatch.setenv("GROUP_WORLD_SIZE", hosts)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    assert _this_life() == name


@contextmanager
def impatient() -> Iterator[None]:
    """Fail if processes wait for one that has ended, which they would do for an hour."""

    def give_up(*_: Any) -> None:
        raise TimeoutError("they wait for each other")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_torchrun_starts_all_again_when_one_was_killed(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """The agent that torchrun runs, with the workers forked instead of started anew."""
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=1,
        monitor_interval=0.1,
        start_method="fork",
    )
    run, notes = tmp_path / "run", tmp_path / "notes"
    notes.mkdir()
    with impatient():
        seen = elastic_launch(launch, _train_and_die_once)(tiny_config(IMAGES), run, notes)
    assert seen == {0: 72, 1: 72}
    assert sorted(file.name for file in notes.iterdir()) == [
        "life 0 of 0 begins at 0",
        "life 0 of 1 begins at 0",
        "life 1 of 0 begins at 24",
        "life 1 of 1 begins at 24",
    ]
    assert (run / "checkpoints" / "step-000000072").is_dir()
