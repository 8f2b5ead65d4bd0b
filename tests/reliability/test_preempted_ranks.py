"""Two processes that train together: told to stop, both save once, exit 75, and go on bit for bit."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ranks import end_of, start_commands
from run_contents import left_by

from civae_core.config import dump_config
from civae_core.config.schema import Config
from civae_core.data.batches import Batch
from civae_core.locks import held
from civae_core.model.stored import read_card
from civae_core.model_paths import find_model_file
from civae_core.training import bookkeeping, loop
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner

MakeConfig = Callable[..., Config]
HOLDING = Path(__file__).with_name("train_until_told.py")
PATIENCE_S = 600

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGUSR1")


def training(config: Path, out: Path) -> list[object]:
    return ["train", "--config", config, "--out", out, "--device", "cpu"]


def under_torchrun(config: Path, out: Path, hold_at: int, hold_ranks: str) -> subprocess.Popen[str]:
    """Two processes under torchrun, which ends both as soon as one exits; some wait at a step for a signal."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # 0: any free port
    told = {"HOLD_AT": str(hold_at), "HOLD_RANKS": hold_ranks, "HOLD_NOTES": str(out.parent)}
    return subprocess.Popen(
        [*command, str(HOLDING), *map(str, training(config, out))],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | told | {"OMP_NUM_THREADS": "1"},
    )


def children_of(launcher: subprocess.Popen[str]) -> dict[str, int]:
    """Process numbers by rank."""
    pids = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    told = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids}
    return {
        variable.removeprefix(b"RANK=").decode(): pid
        for pid, variables in told.items()
        for variable in variables
        if variable.startswith(b"RANK=")
    }


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for path in paths:
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} never came"
            time.sleep(0.01)


@pytest.fixture
def config_file(tiny_config: MakeConfig, tmp_path: Path) -> Path:
    """22 steps; the processes ask each other about a stop after 10 and 20 steps."""
    changes = {
        "train.images": 352,
        "train.batch_size": 16,
        "train.log_every": 64,
        "train.checkpoint_every": 160,  # which is where they stop: whole runs save there too
        "train.sample_every": 100_000,
        "train.validate_images": 4,
        "train.keep": 30,
    }
    file = tmp_path / "two.yml"
    file.write_text(dump_config(tiny_config(changes)), encoding="utf-8")
    return file


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_under_torchrun_both_stop_save_once_and_go_on_to_the_same_bits(
    config_file: Path, tmp_path: Path
) -> None:
    """SIGUSR1 to the process that writes nothing, then SIGTERM to torchrun, which passes it on, then to the end."""
    run, whole, said = tmp_path / "run", tmp_path / "whole", tmp_path / "said"
    log = run / "log.txt"

    def stopped(launcher: subprocess.Popen[str], images: int) -> set[str]:
        """Exit codes as torchrun tells them: none, if it was told to stop itself."""
        try:
            _, stderr = launcher.communicate(timeout=PATIENCE_S)
        finally:
            launcher.kill()
        told = f"stopped at {images} images, after saving"
        assert launcher.returncode != 0, "torchrun keeps the exit code to itself"
        assert told in stderr
        # By SIGTERM ends the one that is still leaving, all saved, when torchrun sees that the other has left.
        codes = set(re.findall(r"exitcode\s*: (-?\d+)", stderr))
        assert codes <= {"75", "-15"}, stderr
        assert log.read_text(encoding="utf-8").count(told) == 1
        assert (run / "checkpoints" / "last").readlink().name == f"step-{images:09d}"
        return codes

    first = under_torchrun(config_file, run, hold_at=48, hold_ranks="1")
    wait_for(tmp_path / "1-at-48")
    os.kill(children_of(first)["1"], signal.SIGUSR1)
    assert "75" in stopped(first, 160)  # the tenth step, where they ask each other

    second = under_torchrun(config_file, run, hold_at=208, hold_ranks="01")
    wait_for(tmp_path / "0-at-208", tmp_path / "1-at-208")
    second.send_signal(signal.SIGTERM)
    stopped(second, 320)

    for out in (run, whole):
        codes, told = end_of(start_commands(training(config_file, out), 2, said), said)
        assert codes == [0, 0], told
    assert left_by(run) == left_by(whole)


def test_none_leaves_before_the_first_has_saved(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first does not save before the second waits for it, or, if it does not wait, has left."""
    run, said = tmp_path / "run", tmp_path / "said"
    second_waits_or_left, saved = tmp_path / "second-waits-or-left", tmp_path / "saved"
    step, save, leave = Learner.step, bookkeeping.save_checkpoint, loop.stopped
    wait_for_all = Processes.wait_for_all

    def told(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
        if seen == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        step(learner, made, seen, partly)

    def saves_last(*arguments: Any, **more: Any) -> Path:
        wait_for(second_waits_or_left)
        path = save(*arguments, **more)
        saved.touch()
        return path

    def waits(processes: Processes) -> None:
        if not processes.is_first:
            second_waits_or_left.touch()
        wait_for_all(processes)

    def leaves(*arguments: Any) -> Exception:
        (tmp_path / f"{os.environ['RANK']}-left-{'after' if saved.exists() else 'before'}").touch()
        second_waits_or_left.touch()
        return leave(*arguments)

    monkeypatch.setattr(Learner, "step", told)
    monkeypatch.setattr(bookkeeping, "save_checkpoint", saves_last)
    monkeypatch.setattr(Processes, "wait_for_all", waits)
    monkeypatch.setattr(loop, "stopped", leaves)
    # Ten steps, after which they ask each other, and no checkpoint of its own is due.
    command = [*training(config_file, run), "--set", "train.batch_size=2"]
    codes, stderrs = end_of(start_commands(command, 2, said), said)
    assert codes == [75, 75], stderrs
    assert {path.name for path in tmp_path.glob("*-left-*")} == {"0-left-after", "1-left-after"}
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000000020"]


def test_a_signal_to_the_process_that_waits_stops_the_pairing_of_noises_too(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first of the two pairs noises. The other is told once they have agreed to begin."""
    run, said = tmp_path / "run", tmp_path / "said"
    pair, largest = loop._pair_noises, Processes.largest

    def told_after_agreeing(processes: Processes, number: int) -> int:
        agreed = largest(processes, number)
        if not processes.is_first:
            os.kill(os.getpid(), signal.SIGUSR1)
        return agreed

    def pair_and_be_told(*arguments: Any) -> None:
        monkeypatch.setattr(Processes, "largest", told_after_agreeing)  # in this process, which was forked
        pair(*arguments)

    monkeypatch.setattr(loop, "_pair_noises", pair_and_be_told)
    command = [*training(config_file, run), "--set", "train.images=32", "--set", "train.pairing_images=480"]
    codes, told = end_of(start_commands(command, 2, said), said)
    assert codes == [75, 75], told
    assert "stopped at 32 images, after saving" in told[0]
    assert read_card(find_model_file(run)).lacks_pairing


def test_where_the_first_is_refused_none_waits_for_it(config_file: Path, tmp_path: Path) -> None:
    """Another process holds the folder; only the first of the two processes checks that."""
    run, said = tmp_path / "run", tmp_path / "said"
    run.mkdir()
    with held(run):
        codes, told = end_of(start_commands(training(config_file, run), 2, said), said)
    assert codes == [1, 1]
    assert f"process {os.getpid()} on " in told[0]
    assert "the first process could not start" in told[1]


def test_where_one_is_killed_the_other_ends_too(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, reached, step = tmp_path / "run", tmp_path / "said", tmp_path / "reached", Learner.step

    def standing_still(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
        if seen == 96 and os.environ["RANK"] == "1":
            reached.touch()
            signal.pause()
        step(learner, made, seen, partly)

    monkeypatch.setattr(Learner, "step", standing_still)
    started = start_commands(training(config_file, run), 2, said)
    wait_for(reached)
    started[1].kill()
    codes, told = end_of(started, said)
    assert codes == [1, -signal.SIGKILL], told
    assert "error: lost contact with another training process" in told[0]
