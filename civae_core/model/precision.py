"""Computations inside a model that need more precision than autocast and TF32 leave them."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the inputs' own precision, also inside an autocast; no effect on the meta device, which has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast, and TF32 in matrix products; convolutions may still use TF32 on CUDA."""
    with product_precision("highest"), without_autocast(device):
        yield


@contextmanager
def product_precision(wanted: str) -> Iterator[None]:
    """Set the precision of float32 matrix products in the block, process-wide, and then as before.

    Args:
        wanted: `highest` is float32; `high` lets CUDA use TF32.
    """
    with _unadvised():
        before = torch.get_float32_matmul_precision()
        if wanted != before:  # graph export cannot trace this call
            torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        if wanted != before:
            with _unadvised():
                torch.set_float32_matmul_precision(before)


@contextmanager
def _unadvised() -> Iterator[None]:
    """Hide PyTorch 2.9's advice to use its new settings: older versions lack them, and they do not mix with these."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        yield
