"""Hints on what to do about operating-system errors, by error number. This module imports nothing heavy."""

import errno

SPELLING = "check the spelling; relative paths start at the folder where civae was started"
"""Hint for a file that does not exist."""

_EITHER = {
    errno.EMFILE: "the limit on open files is too low: raise it, for example with `ulimit -n 4096`",
    errno.ENFILE: "this machine has too many files open: end other programs, then run the same command again",
    errno.ENAMETOOLONG: "no file or folder can have so long a name; use a shorter one",
    errno.EIO: "the disk or its connection failed; use another disk, or try again once it works",
}
_READING = {
    errno.ENOENT: SPELLING,
    errno.ENOTDIR: SPELLING,
    errno.EACCES: "make it readable, for example with `chmod u+r`, or use a copy that you can read",
    errno.EPERM: "make it readable, for example with `chmod u+r`, or use a copy that you can read",
    errno.EISDIR: "name a file, not a folder",
    errno.EINVAL: "copy it to a regular file first, and use that",
    errno.EFBIG: "no file of this kind is that large; check that it is the right file",
}
_WRITING = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "your disk quota is used up",
    errno.EACCES: "check the permissions, or choose another folder",
    errno.EPERM: "check the permissions, or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "was its folder moved or deleted, or its disk unmounted?",
}
_SPACE = "then run the same command again; preparing data and training continue where they stopped"
_ANY = {
    errno.ENOSPC: f"free some space, {_SPACE}",
    errno.EDQUOT: f"your disk quota is used up: delete what you no longer need, {_SPACE}",
    errno.EACCES: "choose a file or folder that you may read and write, or change its permissions",
    errno.EPERM: "choose a file or folder that you may read and write, or change its permissions",
    errno.EROFS: "the file system is read-only; choose a folder that you may write to",
    errno.ENOENT: SPELLING,
    errno.ENOTDIR: SPELLING,
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "choose another name, or move what is already there",
}


def hint_on_reading(error: Exception, otherwise: str = "copy it again; it may be damaged") -> str:
    """What to do if a file cannot be read; `otherwise` if the error number does not say why."""
    return (_EITHER | _READING).get(_number(error), otherwise)


def hint_on_writing(error: OSError) -> str:
    """What to do if a file or folder cannot be written."""
    return (_EITHER | _WRITING).get(_number(error), "name another folder, on another disk if there is one")


def hint_on(error: OSError) -> str | None:
    """What to do if it is unknown what was being done; None if the error number does not say enough."""
    return (_EITHER | _ANY).get(_number(error))


def _number(error: Exception) -> int:
    return (error.errno or 0) if isinstance(error, OSError) else 0
