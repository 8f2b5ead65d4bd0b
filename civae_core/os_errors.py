"""What to do about errors of the operating system, told by their number. This module imports nothing heavy."""

import errno

SPELLING = "is its name right? Relative names begin at the folder where civae is started"
"""About a file that is not there."""

_EITHER = {
    errno.EMFILE: "a process may open too few files here: raise the limit, as with `ulimit -n 4096`",
    errno.ENFILE: "this machine has too many files open: end other programs, then run the same command again",
    errno.EIO: "the disk or its connection failed; use another disk, or try again once it works",
}
_READING = {
    errno.ENOENT: SPELLING,
    errno.ENOTDIR: SPELLING,
    errno.EACCES: "allow yourself to read it, as with `chmod u+r`, or copy it to where you may",
    errno.EPERM: "allow yourself to read it, as with `chmod u+r`, or copy it to where you may",
    errno.EISDIR: "name a file, not a folder",
    errno.EINVAL: "copy it to a regular file first, and name that",
    errno.EFBIG: "no file of this kind is that large; is it another file?",
}
_WRITING = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "your disk quota is used up",
    errno.EACCES: "check the permissions, or choose another folder",
    errno.EPERM: "check the permissions, or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "was its folder moved or deleted, or its disk unmounted?",
}
_SPACE = "then run the same command again; a preparation or a training goes on where it stopped"
_ANY = {
    errno.ENOSPC: f"free some space, {_SPACE}",
    errno.EDQUOT: f"your disk quota is used up: delete what you need no more, {_SPACE}",
    errno.EACCES: "choose a file or folder that you may read and write, or change its permissions",
    errno.EPERM: "choose a file or folder that you may read and write, or change its permissions",
    errno.EROFS: "the file system is read-only; choose a folder that you may write to",
    errno.ENOENT: SPELLING,
    errno.ENOTDIR: SPELLING,
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "choose another name, or move away what is there",
}


def hint_on_reading(error: Exception, otherwise: str = "copy it again; it may be damaged") -> str:
    """What to do where a file cannot be read; `otherwise` where the system does not tell why."""
    return (_EITHER | _READING).get(_number(error), otherwise)


def hint_on_writing(error: OSError) -> str:
    """What to do where a file or folder cannot be written."""
    return (_EITHER | _WRITING).get(_number(error), "name another folder, on another disk if there is one")


def hint_on(error: OSError) -> str | None:
    """What to do where nobody knows any more what was being done; None where the system does not tell enough."""
    return (_EITHER | _ANY).get(_number(error))


def _number(error: Exception) -> int:
    return (error.errno or 0) if isinstance(error, OSError) else 0
