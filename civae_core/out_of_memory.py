"""Whether an error means that memory ran out: libraries say so in many ways. This module imports nothing heavy."""

_WAYS_TO_SAY_IT = (
    "out of memory",
    "DefaultCPUAllocator",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, and cuDNN until 8
    "_ALLOCATION_FAILED",  # cuDNN from 9 on
    "was unable to find an engine to execute this computation",  # cuDNN, if no algorithm's workspace fits
    "Unable to find a valid cuDNN algorithm",
)
"""Texts of a RuntimeError, which is all that PyTorch raises where a library that it calls, not itself, allocates."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a device's or the host's.

    PyTorch's own error is told by its name, since importing torch to check would slow down every command.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _WAYS_TO_SAY_IT)
