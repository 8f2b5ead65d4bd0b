"""Where and how precisely to compute. A device that does not exist is refused, never silently replaced."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from civae_core.errors import UsageError
from civae_core.model.precision import product_precision

Precision = Literal["fp32", "bf16", "fp16"]

AUTOCAST_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device named `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: unknown device", hint="use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            found = f"{count} CUDA devices" if count else "no CUDA device"
            raise UsageError(f"--device {name}: this machine has {found}", hint="see `civae doctor`")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: this machine has no MPS device", hint="see `civae doctor`")
    return device


@dataclass(frozen=True)
class Compute:
    """A device with its autocast precision and memory layout.

    `fp32` is float32 without autocast, whose products CUDA may still compute in TF32 (see `fast_backends`).
    """

    device: torch.device
    precision: Precision
    channels_last: bool

    @classmethod
    def choose(
        cls, device: torch.device, precision: str = "auto", channels_last: bool | Literal["auto"] = "auto"
    ) -> "Compute":
        """Fill in what was left to `auto`: bf16 and channels_last where the GPU computes them fast."""
        tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        if precision == "auto":
            precision = "bf16" if tensor_cores else "fp32"
        if channels_last == "auto":
            channels_last = tensor_cores
        return cls(device, precision, channels_last)  # type: ignore[arg-type]

    @contextmanager
    def fast_backends(self) -> Iterator[None]:
        """Let PyTorch compute fast in the block, process-wide, and then as before.

        On CUDA this means cuDNN benchmarks, and TF32 in matrix products as PyTorch anyway has it in convolutions;
        elsewhere no denormals.
        """
        if self.device.type == "cuda":
            benchmark = torch.backends.cudnn.benchmark
            torch.backends.cudnn.benchmark = True
            try:
                with product_precision("high"):
                    yield
            finally:
                torch.backends.cudnn.benchmark = benchmark
        else:
            flushed = _flushes_denormals()
            torch.set_flush_denormal(True)
            try:
                yield
            finally:
                torch.set_flush_denormal(flushed)

    def autocast(self) -> AbstractContextManager[object]:
        """Context of the forward pass; the objective itself stays in float32."""
        dtype = AUTOCAST_DTYPES.get(self.precision)
        # Do not ask a device about a precision that is not wanted, since not every device can answer.
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def describe(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{name}, {self.precision}{', channels_last' if self.channels_last else ''}"


def _flushes_denormals() -> bool:
    """Whether results too small for a normal number become zero, which PyTorch can set but not tell."""
    return (torch.tensor(1e-30) * 1e-10).item() == 0
