"""One writer for a folder: a file in it names the process that holds it, and is gone when that process is done.

No file system needs to know locks for this: the file comes into being whole or not at all. A holder that can be
looked up (same machine, same table of processes) counts as gone once its process is. Any other, as on another host
that shares the folder, shows that it lives by touching the file, and who wants the folder watches for that. No two
clocks are compared.

Of several processes that find a lock left behind, one may replace it: the one that made the file `after-<its token>`.
Should that one be killed before it replaces the lock, it counts as the holder that has gone, and so on.
"""

import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from civae_core.errors import CivaeError
from civae_core.files import LOCK_NAME, describe_os_error
from civae_core.reading import read_json

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""How long a holder that cannot be looked up may be silent before it counts as gone: six missed beats."""
POLL_SECONDS = 0.5
MOST_LOCK_BYTES = 2**16


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, as its lock says."""

    token: str
    """Drawn for this one holding: tells a lock from a later one of the same process."""
    pid: int
    host: str
    started: str
    """When the folder was taken, by the holder's own clock; for people only."""
    machine: str
    """Identifies the boot of the machine and its table of processes, within which `pid` means something."""
    born: str
    """When process `pid` began, in the machine's own ticks: a later process of the same number differs."""

    @classmethod
    def this_process(cls) -> "Holder":
        return cls(
            token=secrets.token_hex(8),
            pid=os.getpid(),
            host=socket.gethostname(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(),
            born=_birth_of(os.getpid()) or "",
        )

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where this machine cannot tell."""
        if self.host != socket.gethostname() or self.machine != _machine():
            return None
        if self.born:
            return _birth_of(self.pid) == self.born
        if sys.platform == "win32":  # there, the question below would end the process
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return None
        return None if self.pid != os.getpid() else True  # the number may have gone to another process

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def vanished(folder: Path) -> CivaeError:
    """What to raise where a folder that was being written is there no more."""
    return CivaeError(
        f"cannot write {folder}: the folder has vanished",
        hint="was it moved or deleted, or its disk unmounted? Bring it back and run the same command again",
    )


class Lock:
    """A folder held by this process."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.path, self.holder = folder / LOCK_NAME, holder

    def require(self) -> None:
        """Refuses to go on where the folder is no longer this process's: before every write that matters.

        Raises:
            CivaeError: the folder has vanished, or another process took it over.
        """
        found = _read(self.path)
        if found is not None and found.token == self.holder.token:
            return
        if not self.path.parent.is_dir():
            raise vanished(self.path.parent)
        lost = (
            f"taken over by {found}" if found is not None else f"its {self.path.name} was removed or replaced"
        )
        raise CivaeError(
            f"{self.path.parent}: {lost} while this process was writing to it",
            hint="what was saved up to then is intact; let only one process continue",
        )

    def beat(self) -> None:
        """Shows others that the holder lives."""
        with contextlib.suppress(OSError):  # the next write that matters tells what is wrong
            os.utime(self.path)

    def release(self) -> None:
        """Gives the folder back, unless somebody else has it by now."""
        found = _read(self.path)
        if found is not None and found.token == self.holder.token:
            with contextlib.suppress(OSError):
                self.path.unlink()


@contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Holds an existing folder for this process while the block runs.

    Raises:
        CivaeError: another process holds it, which is named, or it cannot be written.
    """
    lock = acquire(folder)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            lock.beat()

    threading.Thread(target=beat, name="lock", daemon=True).start()
    try:
        yield lock
    finally:
        done.set()
        lock.release()


def acquire(folder: Path) -> Lock:
    """Takes a folder, over from a process that has gone if need be. As for `held`, but without the beats."""
    lock = Lock(folder, Holder.this_process())
    try:
        while not (_create(lock.path, lock.holder) or _take_over(lock, require_unheld(folder))):
            pass
        for left in folder.glob(f"{LOCK_NAME}.*"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise describe_os_error(error, lock.path) from error
    return lock


def require_unheld(folder: Path) -> "Left | None":
    """Refuses a folder that a living process holds; writes nothing.

    A holder that cannot be looked up is watched for at most `PATIENCE_SECONDS`.

    Returns:
        The lock of a process that has gone, if there is one.

    Raises:
        CivaeError: names the holder.
    """
    left = _newest(folder / LOCK_NAME)
    if left is None:
        return None
    alive = left.holder.is_alive() if left.holder is not None else None
    if alive is None:
        alive = _watch(folder, left)
    if alive:
        raise CivaeError(
            f"{folder}: {left} is writing to it",
            hint="wait for it, stop it, or name another folder; two writers at once would damage each other's work",
        )
    return left


@dataclass(frozen=True)
class Left:
    """A lock, or a file that claims to replace one, as it was found."""

    path: Path
    holder: Holder | None
    """None where the file is empty or no lock of this version."""
    lock_token: str
    """Of the lock itself, which `path` may be about to replace."""

    @property
    def successor(self) -> Path:
        """The file that whoever may replace this one makes; its name is longer than this one's, so no file is its own
        successor's."""
        return self.path.with_name(f"{self.path.name}.after-{_token(self.holder)}")

    def __str__(self) -> str:
        return str(self.holder) if self.holder is not None else "an unknown process"


def _newest(path: Path) -> Left | None:
    """The lock or, where somebody claims to replace it, the last such claim; None if there is neither."""
    if not path.exists():
        return None
    holder = _read(path)
    left = Left(path, holder, _token(holder))
    while left.successor.exists():
        left = Left(left.successor, _read(left.successor), left.lock_token)
    return left


def _take_over(lock: Lock, left: Left | None) -> bool:
    """Replaces a lock that was left behind; False if somebody else did so meanwhile, or it is gone."""
    if left is None or not _create(left.successor, lock.holder):
        return False
    if not lock.path.exists() or _token(_read(lock.path)) != left.lock_token:
        left.successor.unlink(missing_ok=True)
        return False
    left.successor.replace(lock.path)
    log.warning("%s: taken over from %s, which is gone", lock.path.parent, left)
    return True


def _watch(folder: Path, left: Left) -> bool:
    """Whether a lock is touched, or gives way to another, before patience ends."""
    log.warning("%s: held by %s; waiting up to %.0f s for a sign of life", folder, left, PATIENCE_SECONDS)
    seen, end = _beats(left.path), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        now = _beats(left.path)
        if now is None:
            return False
        if now != seen:
            return True
    return False


def _create(path: Path, holder: Holder) -> bool:
    """Makes a lock's file at one stroke, with its content; False if there is one."""
    content = json.dumps(asdict(holder)) + "\n"
    temporary = path.with_name(f"{LOCK_NAME}.{holder.token}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return False  # swept away by whoever took the folder at this moment
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        return _create_exclusively(path, content)  # a disk without hard links
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _create_exclusively(path: Path, content: str) -> bool:
    """As `_create`, but a reader may see the file before its content; such a reader watches."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError:  # a full disk: an empty lock would make everybody wait
        path.unlink(missing_ok=True)
        raise
    return True


def _token(holder: Holder | None) -> str:
    return holder.token if holder is not None else "unreadable"


def _read(path: Path) -> Holder | None:
    """The holder that a lock names; None where there is none, or it is unreadable."""
    try:
        values = read_json(path, MOST_LOCK_BYTES)
        return Holder(**values)
    except (OSError, ValueError, TypeError):
        return None


def _beats(path: Path) -> tuple[int, int] | None:
    """What changes whenever a lock is touched or written; None where there is none.

    Opened, not just looked at: network file systems then ask the server.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            return state.st_mtime_ns, state.st_ino
    except OSError:
        return None


def _machine() -> str:
    """The boot and the table of processes that this process lives in; containers of one host differ in the latter."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _birth_of(pid: int) -> str | None:
    """The tick at which a process of this machine began; None if there is none, it has ended, or nobody can tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
