"""The standard streams as every command expects them: open, and passing file names through byte for byte."""

import os
import sys
from io import TextIOWrapper

_STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}
"""In the order of their descriptors 0, 1 and 2, since a file that is opened gets the lowest that is free."""


def set_up_streams() -> None:
    """Replace closed streams by empty ones, and read and write file names that are not valid UTF-8 as they are.

    Call it before anything is opened: a file that got the descriptor of a closed stderr would be written into.
    """
    for name, mode in _STREAMS.items():
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)  # as standard streams are
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", errors="backslashreplace"))
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
