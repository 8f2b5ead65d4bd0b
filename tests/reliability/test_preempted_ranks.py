"""Two processes that train together: told to stop, both save once, exit 75, and go on bit for bit."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_contents import left_by

from civae_core.config import dump_config
from civae_core.config.schema import Config

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGUSR1")


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return str(taken.getsockname()[1])


def ranks(config: Path, out: Path) -> list[subprocess.Popen[str]]:
    """Two processes as a launcher starts them; not torchrun, which keeps exit codes to itself."""
    command = [sys.executable, "-m", "civae_cli", "train", "--config", str(config), "--device", "cpu"]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*command, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]


def under_torchrun(config: Path, out: Path) -> subprocess.Popen[str]:
    """The same two, as children of a launcher that ends all as soon as one has left."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # 0: any free port
    command += ["-m", "civae_cli", "train", "--config", str(config), "--out", str(out), "--device", "cpu"]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
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


def finished(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    try:
        said = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


@pytest.fixture
def config_file(tiny_config: MakeConfig, tmp_path: Path) -> Path:
    """32 steps; processes ask each other about a stop after 10, 20 and 30."""
    changes = {
        "train.images": 512,
        "train.batch_size": 16,
        "train.log_every": 64,
        "train.checkpoint_every": 32,
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
    """SIGUSR1 for the process that writes nothing; SIGTERM for torchrun, which tells both; then to the end."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    log = run / "log.txt"

    def stopped(launcher: subprocess.Popen[str]) -> int:
        codes, said = finished([launcher])
        images = int(re.findall(r"stopped at (\d+) images", log.read_text(encoding="utf-8"))[-1])
        told = f"stopped at {images} images, after saving"
        assert codes[0] not in (0, None), "torchrun keeps the exit code to itself"
        assert told in said[0]
        # By SIGTERM ends the one that is still leaving, all saved, when torchrun sees that the other has left.
        assert set(re.findall(r"exitcode\s*: (-?\d+)", said[0])) <= {"75", "-15"}, said
        assert log.read_text(encoding="utf-8").count(told) == 1
        assert (run / "checkpoints" / "last").readlink().name == f"step-{images:09d}"
        return images

    first = under_torchrun(config_file, run)
    wait_for(run / "checkpoints" / "step-000000032")
    os.kill(children_of(first)["1"], signal.SIGUSR1)
    reached = stopped(first)
    assert reached in (160, 320), "asked each other"

    second = under_torchrun(config_file, run)
    wait_for(run / "checkpoints" / f"step-{reached + 32:09d}")
    second.send_signal(signal.SIGTERM)
    assert stopped(second) in (reached + 160, 480)

    codes, said = finished([under_torchrun(config_file, run)])
    assert codes == [0], said
    codes, said = finished(ranks(config_file, whole))
    assert codes == [0, 0], said
    assert left_by(run) == left_by(whole)


def test_where_the_first_is_refused_none_waits_for_it(config_file: Path, tmp_path: Path) -> None:
    """Another process holds the folder; only the first of the two looks."""
    (tmp_path / "run").mkdir()
    holds = "import sys; from pathlib import Path; from civae_core.locks import held\n"
    holds += "with held(Path(sys.argv[1])):\n    print(flush=True)\n    sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", holds, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline()
    codes, said = finished(ranks(config_file, tmp_path / "run"))
    holder.communicate()
    assert codes == [1, 1]
    assert f"process {holder.pid} on " in said[0]
    assert "the first process could not begin" in said[1]


def test_where_one_is_killed_the_other_ends_too(config_file: Path, tmp_path: Path) -> None:
    started = ranks(config_file, tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "step-000000032")
    started[1].kill()
    codes, said = finished(started)
    assert codes == [1, -signal.SIGKILL], said
    assert "error: lost contact with another of the processes" in said[0]
