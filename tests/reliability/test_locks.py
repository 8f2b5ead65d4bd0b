"""A folder has one writer; who has gone is recognised, who lives is named, here and on other hosts."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from civae_core import locks
from civae_core.errors import CivaeError
from civae_core.locks import LOCK_NAME, Holder, acquire, held, require_unheld

HOLDS = """
import sys
from pathlib import Path
from civae_core.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `tmp_path`."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.4)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.02)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_by(folder: Path, **changes: str | int) -> Holder:
    """Write a lock to `folder` that differs in some fields from one of this process."""
    holder = replace(Holder.this_process(), **changes)  # type: ignore[arg-type]
    (folder / LOCK_NAME).write_text(json.dumps(asdict(holder)), encoding="utf-8")
    return holder


def test_a_holder_is_named_and_its_folder_refused(tmp_path: Path, holding: subprocess.Popen[str]) -> None:
    before = (tmp_path / LOCK_NAME).read_bytes()
    for attempt in (acquire, require_unheld):
        with pytest.raises(
            CivaeError, match=rf"process {holding.pid} on {os.uname().nodename}, since 20"
        ) as caught:
            attempt(tmp_path)
        assert "stop it" in (caught.value.hint or "")
    assert (tmp_path / LOCK_NAME).read_bytes() == before
    assert names(tmp_path) == [LOCK_NAME]
    holding.communicate(timeout=120)
    assert names(tmp_path) == [], "given back at the end"


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_taken_over_from_at_once(
    tmp_path: Path, holding: subprocess.Popen[str], reaped: bool
) -> None:
    """Also while its parent has not reaped it, so that its number is still in the process table."""
    holding.send_signal(signal.SIGKILL)
    if reaped:
        holding.wait()
    else:
        os.waitid(os.P_PID, holding.pid, os.WEXITED | os.WNOWAIT)
    began = time.monotonic()
    with held(tmp_path) as lock:
        lock.require()
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < locks.PATIENCE_SECONDS / 2
    assert names(tmp_path) == []


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    left_by(tmp_path, born="1")
    acquire(tmp_path).require()


def test_this_process_cannot_hold_twice(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(CivaeError, match=f"process {os.getpid()} "):
        acquire(tmp_path)
    acquire(tmp_path)


# The machine differs where a host has restarted, and the table of processes from container to container.
@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"machine": "another boot"}])
@pytest.mark.usefixtures("impatient")
def test_a_silent_holder_of_elsewhere_counts_as_gone(
    tmp_path: Path, changes: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    holder = left_by(tmp_path, **changes)
    began = time.monotonic()
    acquire(tmp_path).require()
    assert time.monotonic() - began >= locks.PATIENCE_SECONDS
    watched, taken = caplog.messages
    assert str(holder) in watched and "waiting up to" in watched
    assert f"taken over from {holder}" in taken


def test_a_holder_of_elsewhere_that_gives_a_sign_of_life_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign of life comes during the third wait."""
    holder = left_by(tmp_path, host="elsewhere")
    stamp = (tmp_path / LOCK_NAME).stat().st_mtime_ns
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:  # its clock is years behind ours: only the change matters
            os.utime(tmp_path / LOCK_NAME, ns=(0, stamp - 10**17))

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with pytest.raises(CivaeError, match=re.escape(str(holder))):
        acquire(tmp_path)
    assert waited == [locks.POLL_SECONDS] * 3


def test_a_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    with held(tmp_path) as lock:
        os.utime(lock.path, ns=(0, 0))
        deadline = time.monotonic() + 120
        while lock.path.stat().st_mtime_ns == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_beats_and_patience_are_those_of_the_docs() -> None:
    page = Path(__file__).parents[2] / "docs" / "reliability.md"
    said = r"watched for at most (\d+) s: it gives a sign of life every (\d+) s"
    (found,) = re.findall(said, page.read_text(encoding="utf-8"))
    assert tuple(map(float, found)) == (locks.PATIENCE_SECONDS, locks.BEAT_SECONDS)
    assert locks.BEAT_SECONDS * 6 <= locks.PATIENCE_SECONDS, "a busy disk may lose some"
    assert locks.POLL_SECONDS < locks.BEAT_SECONDS


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
@pytest.mark.usefixtures("impatient")
def test_an_unreadable_lock_is_watched_and_then_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    acquire(tmp_path).require()


def test_of_many_that_find_a_left_lock_one_gets_it(tmp_path: Path) -> None:
    for _ in range(50):
        left_by(tmp_path, born="1")
        start, won = threading.Barrier(6), []

        def attempt(start: threading.Barrier = start, won: list[str] = won) -> None:
            start.wait()
            with contextlib.suppress(CivaeError):
                won.append(acquire(tmp_path).holder.token)

        threads = [threading.Thread(target=attempt) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [json.loads((tmp_path / LOCK_NAME).read_text())["token"]]
        assert names(tmp_path) == [LOCK_NAME]


def test_one_that_was_killed_while_taking_over_is_taken_over_from(tmp_path: Path) -> None:
    first = left_by(tmp_path, born="1")
    second = left_by(tmp_path, born="2")
    (tmp_path / LOCK_NAME).rename(tmp_path / f"{LOCK_NAME}.after-{first.token}")
    (tmp_path / LOCK_NAME).write_text(json.dumps(asdict(first)))
    (tmp_path / f"{LOCK_NAME}.{second.token}.tmp").touch()
    acquire(tmp_path).require()
    assert names(tmp_path) == [LOCK_NAME]


@pytest.mark.usefixtures("impatient")
def test_files_without_a_name_are_taken_over_from(tmp_path: Path) -> None:
    """Without hard links, a power cut leaves an empty lock, and an empty file of who was about to replace it."""
    (tmp_path / LOCK_NAME).touch()
    (tmp_path / f"{LOCK_NAME}.after-unreadable").touch()
    acquire(tmp_path).require()
    assert names(tmp_path) == [LOCK_NAME]


def test_one_that_is_about_to_take_over_is_named(tmp_path: Path) -> None:
    first, second = left_by(tmp_path, born="1"), Holder.this_process()
    (tmp_path / f"{LOCK_NAME}.after-{first.token}").write_text(json.dumps(asdict(second)))
    with pytest.raises(CivaeError, match=re.escape(str(second))):
        acquire(tmp_path)


def refused_link(*_: object) -> None:
    raise PermissionError(1, "no hard links here")


def test_a_disk_without_hard_links_has_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refused_link)
    with held(tmp_path) as lock:
        lock.require()
        with pytest.raises(CivaeError, match=f"process {os.getpid()} "):
            acquire(tmp_path)
    assert names(tmp_path) == []


def vanish(lock: locks.Lock) -> None:
    lock.path.unlink()
    lock.path.parent.rmdir()


def replace_holder(lock: locks.Lock) -> None:
    left_by(lock.path.parent, pid=77, host="elsewhere")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda lock: lock.path.unlink(), r"its \.civae-lock was removed or replaced"),
        (vanish, "the folder has vanished"),
        (replace_holder, "taken over by process 77 on elsewhere"),
    ],
)
def test_who_has_lost_a_folder_does_not_go_on(
    tmp_path: Path, harm: Callable[[locks.Lock], None], message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with held(folder) as lock:
        harm(lock)
        with pytest.raises(CivaeError, match=message):
            lock.require()
    if harm is replace_holder:
        assert (folder / LOCK_NAME).exists(), "another's lock is not ours to remove"


@pytest.mark.parametrize(
    "folder", [Path("/sys"), Path("/proc"), Path()], ids=["forbidden", "holds no files", "deleted"]
)
def test_a_folder_that_cannot_be_written_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root cannot write them either. In the last two a new file is not found, as if its folder had vanished."""
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    monkeypatch.setattr(locks, "require_unheld", lambda _: pytest.fail("looks for who holds it, for ever"))
    with pytest.raises(CivaeError, match=f"cannot write {folder / LOCK_NAME}"):
        acquire(folder)
