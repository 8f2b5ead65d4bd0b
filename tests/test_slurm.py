"""docs/slurm.sh, with stand-ins for srun, scontrol and civae: who is told what, and when a job is queued again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "slurm.sh"
JOB = 40_123
PROCESSES = 2

# Starts the processes, forwards USR1 and returns the highest exit code, as srun does; dies of TERM.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
started = []
signal.signal(signal.SIGUSR1, lambda *_: [process.send_signal(signal.SIGUSR1) for process in started])
for number in range(int(os.environ["SLURM_NTASKS"])):
    place = {{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}}
    started.append(subprocess.Popen(command, env=os.environ | place))
codes = [process.wait() for process in started]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

SCONTROL = """#!/usr/bin/env bash
case "$1" in
  show) printf '%s\\n' first-host second-host ;;
  requeue) echo "$2" >> "$NOTES/requeued"; exit "$REQUEUE_CODE" ;;
esac
"""

# Says how it was called; then ends with $CIVAE_CODE or, where that is no number, runs until USR1 stops it.
CIVAE = """#!/usr/bin/env bash
[ "$CIVAE_CODE" = starting ] || trap 'echo stopped >> "$NOTES/process-$RANK"; exit 75' USR1
{
  echo "$RANK of $WORLD_SIZE, $LOCAL_RANK here, $MASTER_ADDR:$MASTER_PORT, $OMP_NUM_THREADS threads"
  printf '%s\\n' "$@"
} > "$NOTES/writing-$RANK"
mv "$NOTES/writing-$RANK" "$NOTES/process-$RANK"
while [ "$CIVAE_CODE" = starting ] || [ "$CIVAE_CODE" = training ]; do sleep 0.02; done
exit "$CIVAE_CODE"
"""

ARGUMENTS = ["--config", "a config.yml", "--out", "runs/young"]


class Job:
    """One run of the script, in a folder with stand-ins on the PATH."""

    def __init__(self, folder: Path, civae_code: str, requeue_code: str) -> None:
        self.notes = folder / "notes"
        self.notes.mkdir()
        commands = folder / "bin"
        commands.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("civae", CIVAE)):
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        told = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "CIVAE_CODE": civae_code,
            "REQUEUE_CODE": requeue_code,
            "SLURM_JOB_ID": str(JOB),
            "SLURM_JOB_NODELIST": "host-[1-2]",
            "SLURM_NTASKS": str(PROCESSES),
            "SLURM_CPUS_PER_TASK": "4",
        }
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), *ARGUMENTS],
            cwd=folder,
            env=os.environ | told,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_processes(self) -> list[list[str]]:
        """Wait until all processes have written their notes, and return them."""
        files = [self.notes / f"process-{rank}" for rank in range(PROCESSES)]
        for _ in range(20_000):
            if all(file.exists() for file in files):
                return [file.read_text().splitlines() for file in files]
            time.sleep(0.01)
        raise AssertionError("the processes did not start")

    def end(self) -> tuple[int, list[str], str]:
        """Exit code, jobs put back into the queue, stderr."""
        _, stderr = self.process.communicate(timeout=600)
        requeued = self.notes / "requeued"
        return (
            self.process.returncode,
            requeued.read_text().split() if requeued.exists() else [],
            stderr,
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type]:
    jobs: list[Job] = []

    def make(civae_code: str = "training", requeue_code: str = "0") -> Job:
        jobs.append(Job(tmp_path, civae_code, requeue_code))
        return jobs[-1]

    yield make  # type: ignore[misc]
    for job in jobs:
        if job.process.poll() is None:
            job.process.kill()
            job.process.communicate()


def test_bash_can_parse_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_it_can_be_executed_and_asks_to_be_told_early() -> None:
    assert os.access(SCRIPT, os.X_OK)
    lines = SCRIPT.read_text().splitlines()
    assert "#SBATCH --signal=B:USR1@120" in lines and "#SBATCH --requeue" in lines
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:]), "Slurm reads none after it"


def test_every_process_knows_its_place_and_its_arguments(start: type) -> None:
    job = start("0")
    for rank, lines in enumerate(job.wait_for_processes()):
        assert lines[0] == f"{rank} of 2, {rank} here, first-host:20123, 4 threads"
        assert lines[1:] == ["train", *ARGUMENTS]
    code, requeued, _ = job.end()
    assert (code, requeued) == (0, [])


@pytest.mark.parametrize(
    "sent",
    [[signal.SIGUSR1], [signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]],
    ids=["time limit", "preemption", "both"],
)
def test_a_job_that_is_stopped_saves_and_is_queued_again(start: type, sent: list[signal.Signals]) -> None:
    job = start()
    job.wait_for_processes()
    for number in sent:
        job.process.send_signal(number)
    code, requeued, stderr = job.end()
    assert (code, requeued) == (0, [str(JOB)]) and "back in the queue" in stderr
    assert all(lines[-1] == "stopped" for lines in job.wait_for_processes())


def test_a_job_that_is_stopped_before_it_trains_is_queued_again(start: type) -> None:
    job = start("starting")
    job.wait_for_processes()
    job.process.send_signal(signal.SIGUSR1)
    assert job.end()[:2] == (0, [str(JOB)])


@pytest.mark.parametrize("code", ["1", "2", "3", "4", "130", "138"])
def test_a_job_that_failed_stays_out_of_the_queue(start: type, code: str) -> None:
    assert start(code).end()[:2] == (int(code), [])


def test_where_requeueing_is_refused_the_job_says_that_it_was_stopped(start: type) -> None:
    job = start("75", "1")
    assert job.end()[:2] == (75, [str(JOB)])
