"""One writer per folder: a lock file in it names the process that holds it, and is removed when that process is done.

The file system need not support locking, because the file is created complete or not at all. A holder that can be
looked up (same machine, same process table) counts as gone once its process has ended. Any other holder, such as one
on another host that shares the folder, shows that it is alive by touching the file; a process that wants the folder
watches for that. Clocks of two machines are never compared.

Of several processes that find an abandoned lock, only one may replace it: the one that created the file
`after-<the lock's token>`. If this process is killed before it replaces the lock, it counts as the holder that is
gone, and so on.
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
    """The process that holds a folder, as recorded in the lock."""

    token: str
    """Drawn anew for each holding, to tell a lock from a later one of the same process."""
    pid: int
    host: str
    started: str
    """When the folder was acquired, by the holder's own clock; only for people to read."""
    machine: str
    """Identifies the boot of the machine and its process table, within which `pid` is meaningful."""
    born: str
    """When process `pid` started, in ticks of the machine; differs for a later process with the same number."""

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
        """Whether the process is running; None if that cannot be determined on this machine."""
        if self.host != socket.gethostname() or self.machine != _machine():
            return None
        if self.born:
            return _birth_of(self.pid) == self.born
        if sys.platform == "win32":  # there, os.kill would end the process
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return None
        return None if self.pid != os.getpid() else True  # another process may have this number now

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def vanished(folder: Path) -> CivaeError:
    """The error to raise if a folder that was being written to no longer exists."""
    return CivaeError(
        f"cannot write {folder}: the folder has vanished",
        hint="was it moved or deleted, or its disk unmounted? Bring it back and run the same command again",
    )


class Lock:
    """A folder held by this process."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.path, self.holder = folder / LOCK_NAME, holder

    def require(self) -> None:
        """Raise an error unless this process still holds the folder; called before every write that matters.

        Raises:
            CivaeError: the folder has vanished, another process took it over, or its lock was removed.
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
        """Show other processes that the holder is alive."""
        with contextlib.suppress(OSError):  # the next write that matters reports what is wrong
            os.utime(self.path)

    def release(self) -> None:
        """Release the folder, unless another process holds it by now."""
        found = _read(self.path)
        if found is not None and found.token == self.holder.token:
            with contextlib.suppress(OSError):
                self.path.unlink()


@contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Hold an existing folder for this process while the block runs.

    Raises:
        CivaeError: another process, which the message names, holds the folder, or it cannot be written.
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
    """Acquire a folder as `held` does, but without beats; if its holder is gone, take it over."""
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
    """Refuse a folder that a living process holds; writes nothing.

    A holder that cannot be looked up is watched for at most `PATIENCE_SECONDS`.

    Returns:
        The lock of a process that is gone, if there is one.

    Raises:
        CivaeError: a living process holds the folder; the message names it.
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
    """A lock, or a file that claims the right to replace one, as it was found."""

    path: Path
    holder: Holder | None
    """None if the file is empty or not a lock of this version."""
    lock_token: str
    """Token of the lock itself, which `path` may be about to replace."""

    @property
    def successor(self) -> Path:
        """The file created by the process that may replace this one; its name is longer, so no chain is circular."""
        return self.path.with_name(f"{self.path.name}.after-{_token(self.holder)}")

    def __str__(self) -> str:
        return str(self.holder) if self.holder is not None else "an unknown process"


def _newest(path: Path) -> Left | None:
    """The lock or, if processes claim to replace it, the last such claim; None if there is no lock."""
    if not path.exists():
        return None
    holder = _read(path)
    left = Left(path, holder, _token(holder))
    while left.successor.exists():
        left = Left(left.successor, _read(left.successor), left.lock_token)
    return left


def _take_over(lock: Lock, left: Left | None) -> bool:
    """Replace an abandoned lock; False if another process did so meanwhile, or the lock is gone."""
    if left is None or not _create(left.successor, lock.holder):
        return False
    if not lock.path.exists() or _token(_read(lock.path)) != left.lock_token:
        left.successor.unlink(missing_ok=True)
        return False
    left.successor.replace(lock.path)
    log.warning("%s: taken over from %s, which is gone", lock.path.parent, left)
    return True


def _watch(folder: Path, left: Left) -> bool:
    """Whether a lock is touched or replaced within `PATIENCE_SECONDS`."""
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
    """Create a lock file with its content in one step; False if it exists already."""
    content = json.dumps(asdict(holder)) + "\n"
    temporary = path.with_name(f"{LOCK_NAME}.{holder.token}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        return _link(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT):
            raise
        return _create_exclusively(path, content)  # a disk without hard links
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    """Give a complete lock file its name; False if another has it, or removed the file after acquiring the folder."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return False
    return True


def _create_exclusively(path: Path, content: str) -> bool:
    """Like `_create`, but other processes may see the file before its content; they then watch it."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError:  # a full disk: an empty lock would keep everyone waiting
        path.unlink(missing_ok=True)
        raise
    return True


def _token(holder: Holder | None) -> str:
    return holder.token if holder is not None else "unreadable"


def _read(path: Path) -> Holder | None:
    """The holder that a lock names; None if there is no lock, or it is unreadable."""
    try:
        values = read_json(path, MOST_LOCK_BYTES)
        return Holder(**values)
    except (OSError, ValueError, TypeError):
        return None


def _beats(path: Path) -> tuple[int, int] | None:
    """A value that changes whenever a lock is touched or written; None if there is no lock.

    The file is opened, because network file systems then ask the server.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            return state.st_mtime_ns, state.st_ino
    except OSError:
        return None


def _machine() -> str:
    """Identify the boot and the process table of this process; containers on one host differ in the latter."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _birth_of(pid: int) -> str | None:
    """The tick at which a process of this machine started; None if it does not exist, has ended, or is unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
