"""Computations inside a model that need more precision than autocast and TF32 leave them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the inputs' own precision, also inside an autocast; no effect on the meta device, which has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32."""
    products = torch.get_float32_matmul_precision()
    try:
        if products != "highest":  # graph export cannot trace this call
            torch.set_float32_matmul_precision("highest")
        with without_autocast(device):
            yield
    finally:
        if products != "highest":
            torch.set_float32_matmul_precision(products)
