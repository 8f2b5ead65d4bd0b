"""Kill prepare-data and training at random moments, run them again, and compare with undisturbed runs.

    python benchmarks/stress.py [--rounds 50] [--seed 0] [--work DIR] [--json]

A round starts one of the two in a new folder, kills it one to three times (SIGKILL), and lets it finish. A kill comes
either right before one of its changes to the file system (a file opened for writing, renamed, deleted, …; half of the
time one during the writing of a checkpoint), or after a random time, possibly inside a write. After every kill,
whatever can be read is read: a checkpoint must load, and prepared data must open or be refused. At the end every data
file, checkpoint, sample grid and line of metrics must equal that of the undisturbed run (except for timings), and the
folder must hold nothing else. Exit code 1 if any round failed.

A kill cannot simulate a loss of power, after which a disk may lack what the system had not yet written to it.

`--spoil` breaks one safeguard on purpose, to show that the comparison notices it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimisers import it, which takes longer than a run: once here, not in every child

import civae_core.data.report_figures  # noqa: F401 - likewise
from civae_core import files
from civae_core.config.schema import Config, DataConfig, ModelConfig, TrainConfig
from civae_core.data import PreparedData, pack, tensorfile
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.errors import DataError
from civae_core.files import sha256_of
from civae_core.model.stored import load_model
from civae_core.progress import set_quiet
from civae_core.training import pairing
from civae_core.training.checkpoint import last_checkpoint
from civae_core.training.loop import train
from civae_core.training.metrics_file import MetricsFile

CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TIMEOUT_SECONDS = 300.0
MOST_KILLS = 3
IN_ROUNDS_OF = 10
"""Preparation uses two processes once in this many rounds."""


@dataclass(frozen=True)
class Job:
    """A job that fills a folder."""

    name: str
    run: Callable[[Path], object]
    read: Callable[[Path], object]
    """Reads the folder; raises if something half-written passes for whole."""


@dataclass
class Reference:
    """An undisturbed run: what it leaves behind, how long it takes, and its changes to the file system in order."""

    content: dict[str, str]
    seconds: float
    changes: list[str]


@dataclass
class Tally:
    """Counts of rounds and kills, and the failures that they caused."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def prepare_faces(out: Path, workers: int = 1, count: int = 320) -> None:
    """Prepare faces in five chunks and three shards, with the truths of the held-out ones."""
    pack.SHARD_BYTES = 2 * 64 * 3 * 32**2
    truths = [TruthSpec("Young=flip", {"Young": "flip"})]
    source = faces_source(count=count, seed=0, overlap=0.5, truths=truths, size=32, channels=3)
    prepare(source, out, workers=workers, max_bad=MaxBad("0", count=0))


def read_data(out: Path) -> None:
    try:
        data = PreparedData.open(out)
    except DataError:
        return  # refused, as incomplete data must be
    data.verify()


def train_faces(data: Path) -> Callable[[Path], None]:
    """A training of eight steps with four checkpoints, of which two are kept, and a sample grid."""
    config = Config(
        data=DataConfig(path=str(data), treatment=["Young"], covariates=["Male"]),
        model=ModelConfig(latent=8, width=8, stages=[1, 2], prior_hidden=16),
        train=TrainConfig(
            images=128,
            batch_size=16,
            lr_warmup=32,
            log_every=48,
            checkpoint_every=32,
            sample_every=128,
            validate_images=4,
            ema_halflife=100,
            keep=2,
        ),
    )
    return lambda out: train(config, out, device="cpu") and None


def read_run(out: Path) -> None:
    if (newest := last_checkpoint(out / "checkpoints")) is not None:
        load_model(newest)


def content_of(folder: Path) -> dict[str, str]:
    """Every file with its checksum, links with their targets, and lines of metrics without timings."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for line in lines:
                for timed in ("images_per_second", "pairing_seconds"):
                    line.pop(timed, None)
            found[name] = json.dumps(lines)
        elif path.name in ("log.txt", "env.json", "command.txt"):
            found[name] = "tells of the single process"
        elif path.is_file():
            found[name] = sha256_of(path)
    return found


def in_child(act: Callable[[], object], error_file: Path) -> int:
    """Start `act` in a fork of this process, which has imported everything and computed nothing; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with error_file.open("w", encoding="utf-8") as said:
            os.dup2(said.fileno(), 2)
            os.dup2(said.fileno(), 1)
            try:
                act()
                code = 0
            except BaseException:
                traceback.print_exc(file=said)
    finally:
        os._exit(code)


def on_change(folder: Path, tell: Callable[[str], None]) -> None:
    """Call `tell` with a description right before every change that this process makes under `folder`."""
    inside = str(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        paths = [os.fspath(a) for a in arguments[:2] if isinstance(a, str | os.PathLike)]
        deleting = event in ("os.remove", "os.rmdir")  # deleting a tree uses names relative to its folders
        if deleting or any(str(path).startswith(inside) for path in paths):
            tell(f"{event.removeprefix('os.')} {' '.join(str(p).removeprefix(inside) for p in paths)}")

    sys.addaudithook(hook)


def killed_at(folder: Path, number: int) -> None:
    """Make this process kill itself right before its change with that number, counted from 1."""
    count = 0

    def tell(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    on_change(folder, tell)


def ended(pid: int, within: float = TIMEOUT_SECONDS) -> int | None:
    """A child's exit code, negative for a signal; None if it is still running after `within` seconds."""
    end = time.monotonic() + within
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)


def finish(act: Callable[[], object], error_file: Path) -> str | None:
    """Run `act` to its end in a child; return what went wrong, or None."""
    pid = in_child(act, error_file)
    code = ended(pid)
    if code is None:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        return f"still running after {TIMEOUT_SECONDS:.0f} s"
    return None if code == 0 else f"exit {code}: {error_file.read_text(encoding='utf-8')[-2000:]}"


def reference(job: Job, work: Path) -> Reference:
    """Run a job undisturbed twice, first to list its changes, then to time it."""
    changes = work / f"{job.name}-changes.txt"

    def listed(out: Path) -> None:
        with changes.open("a", buffering=1, encoding="utf-8") as file:
            on_change(out, lambda text: print(text, file=file) and None)
            job.run(out)

    seconds = 0.0
    contents = []
    for run, name in ((listed, "first"), (job.run, "second")):
        out, began = work / f"{job.name}-{name}", time.monotonic()
        if wrong := finish(lambda run=run, out=out: run(out), work / "errors.txt"):
            raise SystemExit(f"{job.name}, undisturbed: {wrong}")
        seconds = time.monotonic() - began
        contents.append(content_of(out))
    if contents[0] != contents[1]:
        raise SystemExit(f"{job.name}: two undisturbed runs differ: {differences(*contents)}")
    return Reference(contents[0], seconds, changes.read_text(encoding="utf-8").splitlines())


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def kill_once(job: Job, out: Path, known: Reference, draw: random.Random, errors: Path) -> str:
    """Run a job until it is killed, or finishes before; return where it was killed."""
    if draw.random() < 0.6:
        checkpoint = [n for n, text in enumerate(known.changes) if "/.writing-" in text]
        inside = bool(checkpoint) and draw.random() < 0.5
        number = draw.choice(checkpoint) if inside else draw.randrange(len(known.changes))

        def act() -> None:
            killed_at(out, number + 1)
            job.run(out)

        code = ended(in_child(act, errors))
        place = f"{job.name}: before a change of files" + (" amid a checkpoint" if inside else "")
    else:
        pid = in_child(lambda: job.run(out), errors)
        code = ended(pid, within=draw.uniform(0, known.seconds))
        if code is None:
            os.kill(pid, signal.SIGKILL)
            code = ended(pid)
        place = f"{job.name}: at a moment"
    if code == -signal.SIGKILL:
        return place
    if code == 0:
        return f"{job.name}: finished before"
    raise RuntimeError(f"exit {code}: {errors.read_text(encoding='utf-8')[-2000:]}")


def one_round(job: Job, known: Reference, work: Path, draw: random.Random, tally: Tally) -> None:
    """Kill a job and read its folder, one to three times; then let it finish, and compare."""
    out, errors = work / "out", work / "errors.txt"
    shutil.rmtree(out, ignore_errors=True)
    places = []
    try:
        for _ in range(draw.randint(1, MOST_KILLS)):
            places.append(kill_once(job, out, known, draw, errors))
            if wrong := finish(lambda: job.read(out), errors):
                raise RuntimeError(f"reading what was there: {wrong}")
        if wrong := finish(lambda: job.run(out), errors):
            raise RuntimeError(f"running again: {wrong}")
        if differ := differences(known.content, content_of(out)):
            raise RuntimeError(f"differs from the undisturbed run: {', '.join(differ)}")
    except RuntimeError as error:
        tally.failures.append(f"round {tally.rounds}, {'; '.join(places)}: {error}")
    tally.kills.update(places)
    tally.rounds += 1


def spoil(what: str) -> None:
    """Break one safeguard."""
    if what == "metrics":

        def keep_all(self: MetricsFile, **_: object) -> None:
            self.lines = len(self.path.read_text().splitlines()) if self.path.exists() else 0

        MetricsFile.cut_back = keep_all  # type: ignore[method-assign]
    elif what == "files":
        from contextlib import contextmanager

        @contextmanager
        def in_place(path: Path):  # type: ignore[no-untyped-def]
            path.touch()
            yield path

        tensorfile.atomic_file = files.atomic_file = in_place


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a new folder, kept; else a temporary one")
    parser.add_argument("--only", choices=["prepare", "train"])
    parser.add_argument("--spoil", choices=["metrics", "files"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    set_quiet(True)
    pairing.CHECKED = (
        1  # the result of training's last step is compared; whether it is worth keeping does not matter
    )
    if args.spoil:
        spoil(args.spoil)

    work = args.work or Path(tempfile.mkdtemp(prefix="civae-stress-"))
    work.mkdir(parents=True, exist_ok=True)
    data = work / "data"
    if wrong := finish(lambda: prepare_faces(data), work / "errors.txt"):
        raise SystemExit(wrong)
    jobs = {
        "prepare": Job("prepare", prepare_faces, read_data),
        "train": Job("train", train_faces(data), read_run),
    }
    parallel = Job("prepare, two processes", lambda out: prepare_faces(out, workers=2), read_data)
    names = [args.only] if args.only else ["prepare", "train"]
    known = {name: reference(jobs[name], work) for name in names}
    draw, tally = random.Random(args.seed), Tally()
    for number in range(args.rounds):
        name = names[number % len(names)]
        job = parallel if name == "prepare" and number % IN_ROUNDS_OF == IN_ROUNDS_OF - 2 else jobs[name]
        failed = len(tally.failures)
        one_round(job, known[name], work, draw, tally)
        if not args.json:
            print(f"round {number + 1}/{args.rounds}: {len(tally.failures)} failures", file=sys.stderr)
            for failure in tally.failures[failed:]:
                print(failure, file=sys.stderr)
    if not args.work:
        shutil.rmtree(work)

    killed = {place: count for place, count in sorted(tally.kills.items()) if "finished" not in place}
    found = {
        "rounds": tally.rounds,
        "kills": sum(killed.values()),
        "where": killed,
        "changes_of_files": {name: len(known[name].changes) for name in names},
        "failures": tally.failures,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(found, indent=None if args.json else 2))
    raise SystemExit(1 if tally.failures else 0)


if __name__ == "__main__":
    main()
