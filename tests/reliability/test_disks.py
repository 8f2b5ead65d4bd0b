"""Full disks, folders that vanish or may not be written, and clocks that jump: said, and nothing is lost."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acting_reader import ActingReader
from run_contents import left_by, lines_of

from civae_core.config.schema import Config
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import Outcome, prepare
from civae_core.data.sources.base import Source
from civae_core.data.sources.faces import faces_source
from civae_core.errors import CivaeError
from civae_core.training.checkpoint import TEMPORARY_PREFIX, last_checkpoint
from civae_core.training.loop import train

MakeConfig = Callable[..., Config]
Amid = Callable[[int, Callable[[], object]], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A real file system in memory, of some size; only root may make one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a file system here")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def some_faces() -> Source:
    """Three chunks of 64 faces at 32 px, 590 kB."""
    return faces_source(count=192, seed=0, overlap=0.5, truths=[], size=32, channels=3)


def prepared(source: Source, out: Path) -> Outcome:
    return prepare(source, out, workers=1, max_bad=MaxBad("0", count=0))


def test_a_disk_that_fills_up_while_preparing_costs_nothing_that_is_done(
    disk: Callable[[str], Path], tmp_path: Path
) -> None:
    place = disk("500k")
    with pytest.raises(CivaeError, match=f"cannot write {place}/out/.*: No space left on device") as caught:
        prepared(some_faces(), place / "out")
    assert (caught.value.exit_code, caught.value.hint) == (1, "free some space, or write to another disk")
    done = list((place / "out" / ".partial").glob("chunk-*.json"))
    assert done
    remount(place, "size=20m")
    again = prepared(some_faces(), place / "out")
    assert again.data.fingerprint == prepared(some_faces(), tmp_path / "whole").data.fingerprint


def test_a_disk_that_fills_up_while_training_costs_nothing_that_is_saved(
    disk: Callable[[str], Path], short_config: MakeConfig, tmp_path: Path
) -> None:
    """A checkpoint of this network takes some megabytes; the first fits, the second does not."""
    train(short_config(), tmp_path / "whole", device="cpu")
    size = sum(p.stat().st_size for p in (tmp_path / "whole" / "checkpoints" / "last").iterdir())
    place = disk(str(int(1.5 * size)))
    with pytest.raises(CivaeError, match=r"step-000000064: No space left on device") as caught:
        train(short_config(), place / "run", device="cpu")
    assert caught.value.exit_code == 1
    assert {p.name for p in (place / "run" / "checkpoints").iterdir()} == {"step-000000032", "last", "best"}
    remount(place, "size=1g")
    assert train(short_config(), place / "run", device="cpu").finished
    assert left_by(place / "run") == left_by(tmp_path / "whole")


def test_no_space_for_a_line_of_metrics(short_config: MakeConfig, tmp_path: Path, amid: Amid) -> None:
    """The metrics are written to a device that is always full."""
    metrics = tmp_path / "run" / "metrics.jsonl"

    def fill() -> None:
        metrics.rename(tmp_path / "kept")
        metrics.symlink_to("/dev/full")

    amid(64, fill)
    with pytest.raises(CivaeError, match=r"metrics.jsonl: No space left on device"):
        train(short_config(train__log_every=16), tmp_path / "run", device="cpu")
    metrics.unlink()
    (tmp_path / "kept").rename(metrics)
    train(short_config(train__log_every=16), tmp_path / "run", device="cpu")
    assert [line["images"] for line in lines_of(tmp_path / "run") if "lr" in line] == [16, 32, 48, 64, 80, 96]


def test_no_space_for_the_log_does_not_end_a_run(
    short_config: MakeConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").symlink_to("/dev/full")
    assert train(short_config(), tmp_path / "run", device="cpu").finished
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_fails_only_when_flushed_leaves_no_checkpoint(
    short_config: MakeConfig, tmp_path: Path, amid: Amid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems and quotas fail in this way."""

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    amid(48, lambda: monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(CivaeError, match="step-000000064: Disk quota exceeded") as caught:
        train(short_config(), tmp_path / "run", device="cpu")
    assert caught.value.hint == "your disk quota is used up"
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "step-000000032",
        "last",
        "best",
    }


def test_a_read_only_disk_is_named(disk: Callable[[str], Path], short_config: MakeConfig) -> None:
    place = disk("20m")
    data = prepared(some_faces(), place / "data").data
    remount(place, "ro")
    with pytest.raises(CivaeError, match=f"cannot write {place}/run: Read-only file system") as caught:
        train(short_config(), place / "run", device="cpu")
    assert "choose another folder" in (caught.value.hint or "")
    with pytest.raises(CivaeError, match=f"cannot write {place}/out.*: Read-only file system"):
        prepared(some_faces(), place / "out")
    again = prepared(some_faces(), place / "data")
    assert not again.fresh and again.data.fingerprint == data.fingerprint, "finished data need no writing"


@pytest.mark.parametrize("deleted", ["run", "checkpoints"])
def test_a_run_that_vanishes_is_said_and_not_begun_anew(
    short_config: MakeConfig, tmp_path: Path, amid: Amid, deleted: str
) -> None:
    run = tmp_path / "run"
    amid(48, lambda: shutil.rmtree(run if deleted == "run" else run / "checkpoints"))
    if deleted == "run":
        with pytest.raises(CivaeError, match="the folder has vanished") as caught:
            train(short_config(), run, device="cpu")
        assert "Bring it back" in (caught.value.hint or "")
        assert not run.exists(), "a new folder of that name would hide what happened"
    else:
        assert train(short_config(), run, device="cpu").finished
        assert (run / "checkpoints" / "last").is_dir()


def test_prepared_data_that_vanish_are_said_and_not_begun_anew(tmp_path: Path) -> None:
    source, out = some_faces(), tmp_path / "out"
    object.__setattr__(source, "reader", ActingReader(source.reader, lambda: shutil.rmtree(out)))
    with pytest.raises(CivaeError, match=f"cannot write {out}: the folder has vanished"):
        prepared(source, out)
    assert not out.exists()


def test_what_a_kill_left_lying_is_tidied_up_when_training_goes_on(
    short_config: MakeConfig, tmp_path: Path
) -> None:
    """Killed after its last checkpoint was renamed: before `last` named it, and before older ones were deleted."""
    config = short_config(train__keep=1)
    train(config, tmp_path / "whole", device="cpu")
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run, symlinks=True)
    checkpoints = run / "checkpoints"
    (checkpoints / "last").unlink()
    for name in ("step-000000032", f"{TEMPORARY_PREFIX}step-000000096"):
        shutil.copytree(checkpoints / "step-000000096", checkpoints / name)
    train(config, run, device="cpu")
    assert left_by(run) == left_by(tmp_path / "whole")


def test_no_clock_decides_anything(
    short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock runs backwards by days, and files have dates that contradict their order."""
    train(short_config(), tmp_path / "whole", device="cpu")
    run, now = tmp_path / "run", [time.time()]

    def backwards() -> float:
        now[0] -= 1e5
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    train(short_config(), run, device="cpu", stop_at=64)
    for number, path in enumerate(sorted((run / "checkpoints").glob("step-*"))):
        os.utime(path, (4e9 - 1e9 * number,) * 2)
    newest = last_checkpoint(run / "checkpoints")
    assert newest is not None and newest.name == "step-000000064", "though its date is the older one"
    train(short_config(), run, device="cpu")
    weights = "step-000000096/model.safetensors"
    assert left_by(run)[weights] == left_by(tmp_path / "whole")[weights]
