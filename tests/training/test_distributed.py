"""Two processes train what one process trains, into one folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from ranks import end_of, run_ranks, start_commands
from safetensors.torch import load_file

from civae_core.config import dump_config
from civae_core.config.schema import Config
from civae_core.errors import CivaeError, InterruptedRunError, PreemptedError, UsageError
from civae_core.training import start as start_module
from civae_core.training.checkpoint import Counters
from civae_core.training.distributed import Processes, joined
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.preview import preview
from civae_core.training.run_folder import RunFolder
from civae_core.training.setback import set_back
from civae_core.training.start import Start

IMAGES = {
    "train.images": 128,
    "train.batch_size": 16,
    "train.log_every": 32,
    "train.checkpoint_every": 64,
    "train.validate_images": 4,
    "train.lr_warmup": 0,
}


def weights_of(checkpoint: Path) -> torch.Tensor:
    """The model's weights, in one row."""
    state = load_file(checkpoint / "state.safetensors")
    return torch.cat([v.flatten() for k, v in sorted(state.items()) if k.startswith("model.")])


def assert_near(two: Path, one: Path, before: torch.Tensor) -> None:
    """Same weights but for the order of sums, measured against how far training moved them."""
    moved = (weights_of(one) - before).norm()
    assert moved > 0.1
    assert (weights_of(two) - weights_of(one)).norm() < 1e-3 * moved


def test_two_processes_train_what_one_does_and_one_can_go_on(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(IMAGES)
    (tmp_path / "two.yml").write_text(dump_config(config), encoding="utf-8")
    command = ["train", "--config", tmp_path / "two.yml", "--device", "cpu", "--out", tmp_path / "two"]
    codes, stderrs = end_of(start_commands([*command, "--stop-at", "64"], 2, said := tmp_path / "said"), said)
    assert codes == [0, 0], stderrs
    stdouts = [(tmp_path / f"said-{rank}.out").read_text(encoding="utf-8") for rank in range(2)]
    assert stdouts == [f"{tmp_path / 'two'}\n", ""], "only the first process speaks"
    assert stderrs[0].count("training to 64 images on cpu") == 1
    assert stderrs[0].count("train: 64/64 images") == 1 and stderrs[1] == ""

    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 64]
    assert ["valid_loss" in line for line in lines] == [False, False, True]
    assert json.loads((tmp_path / "two" / "env.json").read_text())["world_size"] == 2
    checkpoints = tmp_path / "two" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"step-000000064", "last", "best"}

    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)
    train(tiny_config(IMAGES | {"train.images": 16, "train.lr": 1e-30}), tmp_path / "start", device="cpu")
    before = weights_of(tmp_path / "start" / "checkpoints" / "last")
    train(config, tmp_path / "one", device="cpu")
    assert_near(checkpoints / "step-000000064", tmp_path / "one" / "checkpoints" / "step-000000064", before)

    assert train(config, tmp_path / "two", device="cpu").finished
    assert_near(checkpoints / "last", tmp_path / "one" / "checkpoints" / "last", before)


def test_processes_that_find_different_checkpoints_are_refused(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process lists the folder as it was before the last checkpoint, as a network disk may show it."""
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)
    config, run = tiny_config(IMAGES), tmp_path / "run"
    (tmp_path / "two.yml").write_text(dump_config(config), encoding="utf-8")
    train(config, run, device="cpu", stop_at=96)
    checkpoints = [run / "checkpoints" / f"step-{images:09d}" for images in (64, 96)]
    assert all(path.is_dir() for path in checkpoints)

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = contents()
    real = start_module.last_checkpoint
    monkeypatch.setattr(
        start_module,
        "last_checkpoint",
        lambda folder: checkpoints[0] if os.environ.get("RANK") == "1" else real(folder),
    )
    command = ["train", "--config", tmp_path / "two.yml", "--device", "cpu", "--out", run]
    codes, stderrs = end_of(start_commands(command, 2, said := tmp_path / "said"), said)
    assert codes == [1, 1], stderrs
    for found, stderr in zip(reversed(checkpoints), stderrs, strict=True):
        words = " ".join(stderr.split())
        assert f"not all processes begin from the same checkpoint: this one found {found}" in words
        assert "hint: let all hosts share the folders" in words
    assert contents() == before


@pytest.mark.parametrize(
    ("second", "alike"),
    [
        (Counters(64, 64, 1.5, 2), True),
        (Counters(32, 32, 1.5, 1), False),
        (Counters(64, 64, 1.25, 2), False),
        (None, False),
    ],
    ids=["the same", "older", "another run's", "none"],
)
def test_what_processes_restored_must_be_alike(
    second: Counters | None, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"0": Counters(64, 64, 1.5, 2), "1": second or Counters(metrics_lines=0)}
    monkeypatch.setattr(Start, "_restore", lambda *_: found[os.environ["RANK"]])

    def restored() -> str:
        start = Start(Path("step") if found[os.environ["RANK"]].images_seen else None, True, None)
        try:
            with joined("cpu") as processes:
                start.restore(None, processes)  # type: ignore[arg-type]
        except CivaeError as error:
            return error.message
        return ""

    told = "not all processes begin from the same checkpoint: this one found "
    expected = ["", ""] if alike else [f"{told}step", f"{told}{'step' if second else 'none'}"]
    assert run_ranks(2, restored) == expected


def test_a_setback_to_different_checkpoints_is_refused_before_any_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Start, "_restore", lambda *_: Counters(64 if os.environ["RANK"] == "0" else 32))
    later = tmp_path / "checkpoints" / "step-000000096"
    later.mkdir(parents=True)

    def gone_back() -> str:
        with pytest.raises(CivaeError) as caught, joined("cpu") as processes:
            set_back(128, Start(None, False, None), RunFolder(tmp_path), Mock(), Mock(), processes)
        return caught.value.message

    told = run_ranks(2, gone_back)
    assert all("not all processes begin from the same checkpoint" in message for message in told)
    assert later.is_dir()


def test_batches_must_be_shared_evenly() -> None:
    Processes(rank=1, world_size=2).require_even_shares(6)
    with pytest.raises(
        UsageError, match=r"train.batch_size: 7 images cannot be divided evenly among 2 processes"
    ) as caught:
        Processes(rank=1, world_size=2).require_even_shares(7)
    assert caught.value.hint == "for example --set train.batch_size=8"


def test_alone_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as processes:
        assert processes == Processes(0, 1, 0)
        assert processes.is_first
        assert processes.largest(2) == 2
        assert processes.own_device("auto") == "auto"
    assert not torch.distributed.is_initialized()


def test_half_of_what_a_launcher_says_starts_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with joined("cpu") as processes:
        assert processes == Processes(0, 1, 0)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on this host; this is the first."""
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (told | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused_by_each_of_them(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    gpus(monkeypatch, 1)
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        with (
            pytest.raises(UsageError, match=rf"--device {device}: .*2 processes .* see 1 GPU$"),
            joined(device),
        ):
            pass
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # srun tells no process how many it has beside it
    monkeypatch.setenv("LOCAL_RANK", "4")
    gpus(monkeypatch, 4)
    with pytest.raises(UsageError, match=r"5 processes on this host see 4 GPUs$"), joined(device):
        pass
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("launched")
def test_one_named_gpu_for_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    gpus(monkeypatch, 4)
    for run in (train, preview):
        with pytest.raises(UsageError, match="--device cuda:1: 2 processes cannot share one GPU") as caught:
            run(tiny_config(), tmp_path / "run", device="cuda:1")
        assert "auto" in (caught.value.hint or "")


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_mps_for_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., Config], tmp_path: Path, device: str
) -> None:
    """Gloo exchanges tensors of the CPU and of CUDA, and there is no NCCL on a Mac."""
    gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for run in (train, preview):
        with pytest.raises(
            UsageError, match=f"--device {device}: 2 processes cannot train together on MPS"
        ) as caught:
            run(tiny_config(), tmp_path / "run", device=device)
        assert "--device cpu" in (caught.value.hint or "")


def test_several_processes_without_a_gpu_of_cuda_are_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    two = Processes(rank=1, world_size=2, local_rank=1)
    assert [two.own_device(name) for name in ("auto", "cpu", "cuda")] == ["cpu", "cpu", "cuda"]
    assert Processes().own_device("auto") == "auto"


def meet_nobody(monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> tuple[Mock, Mock]:
    """Find no other process, and wait for none; returns what begins a group and what closes it."""
    found = (torch.distributed.HashStore(), 0, 2)
    begin, close = Mock(), Mock()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([found]))
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", close)
    return begin, close


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            RuntimeError("[…/gloo/transport/tcp/pair.cc:545] Read error"),
            CivaeError,
            "lost contact with another training process",
        ),
        (
            torch.distributed.DistBackendError("NCCL"),
            CivaeError,
            "lost contact with another training process",
        ),
        (RuntimeError("shapes differ"), RuntimeError, "shapes differ"),
    ],
)
def test_a_process_that_went_away_is_no_internal_error(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, kind: type[Exception], message: str
) -> None:
    meet_nobody(monkeypatch)
    with pytest.raises(kind, match=message), joined("cpu"):
        raise error


def test_enough_gpus_make_a_group_of_each_its_own(monkeypatch: pytest.MonkeyPatch, launched: None) -> None:
    gpus(monkeypatch, 2)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", choose := Mock())
    begin, close = meet_nobody(monkeypatch, rank=1)
    with joined("auto") as processes:
        assert processes.own_device("auto") == "cuda:1"
    assert begin.call_args.args == ("nccl",)
    choose.assert_called_once_with(1)
    close.assert_called_once_with()


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(
    ("there", "error", "closed"),
    [
        (2, PreemptedError("stopped"), True),
        (2, InterruptedRunError("stopped"), True),
        (2, CivaeError("the disk is full"), False),
        (2, torch.distributed.DistBackendError("NCCL"), False),
        (2, KeyboardInterrupt(), False),
        (0, CivaeError("the disk is full"), True),
    ],
    ids=["preempted", "interrupted", "failed", "lost contact", "second Ctrl-C", "failed, over Gloo"],
)
def test_a_process_that_fails_alone_does_not_wait_for_the_others_to_close_nccl(
    monkeypatch: pytest.MonkeyPatch, there: int, error: BaseException, closed: bool
) -> None:
    """They may be waiting for its gradients, and nobody would read its error before their patience ends."""
    gpus(monkeypatch, there)
    monkeypatch.setattr(torch.cuda, "set_device", Mock())
    begin, close = meet_nobody(monkeypatch)
    with pytest.raises((CivaeError, KeyboardInterrupt)), joined("auto"):
        raise error
    assert begin.call_args.args == ("nccl" if there else "gloo",)
    assert close.call_count == closed
