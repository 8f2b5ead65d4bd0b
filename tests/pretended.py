"""An Apple GPU that every machine can pretend to have: it computes on the CPU, and refuses what a real one does."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MPS = torch.device("mps")
CROSSING = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations between devices: copies, and indexing, whose indices may be on the CPU."""
_STAND_IN = torch.device("meta")
"""What PyTorch is told instead of `mps`, which it refuses, before any mode is asked, where there is none."""


class PretendedAppleGPU:
    """While entered, `mps` is a device without float64, which shares no tensors with the CPU.

    An operation raises TypeError if it makes float64 of a tensor on the device or puts float64 there, and
    RuntimeError if it takes tensors from both the device and the CPU.
    """

    def __init__(self) -> None:
        self._modes = (_Operations(), _Calls())

    def __enter__(self) -> "PretendedAppleGPU":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class OnDevice(Tensor):
    """A tensor that says it is on the device; its values are on the CPU."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=_STAND_IN,
        )
        made.values = values
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise AssertionError(f"{func}: used after the pretended device was left")


class _Operations(TorchDispatchMode):
    """Computes on the CPU what the device is asked for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        there: dict[int, Tensor] = {}
        here: dict[int, Tensor] = {}

        def values_of(given: Any) -> Any:
            if isinstance(given, OnDevice):
                there[id(given.values)] = given
                return given.values
            if isinstance(given, Tensor):
                here[id(given)] = given
            return type(given)(map(values_of, given)) if isinstance(given, list | tuple) else given

        args = values_of(args)
        kwargs = {name: values_of(given) for name, given in (kwargs or {}).items()}
        if there and any(t.ndim for t in here.values()) and func.overloadpacket.__name__ not in CROSSING:
            raise RuntimeError(f"{func}: all tensors should be on the same device, found mps and cpu")
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        belongs_there = bool(there) if wanted is None else wanted in (MPS, _STAND_IN)
        found = func(*args, **kwargs)

        def placed(result: Any) -> Any:
            if not isinstance(result, Tensor):
                return type(result)(map(placed, result)) if isinstance(result, list | tuple) else result
            if result.dtype == torch.float64 and (there or belongs_there):
                raise TypeError(f"{func}: cannot convert an MPS tensor to float64")
            if id(result) in there:
                return there[id(result)]
            return OnDevice(result) if belongs_there and id(result) not in here else result

        return placed(found)


class _Calls(TorchFunctionMode):
    """Rewords calls that PyTorch would refuse, or answer without values, before they become operations."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].values.tolist()
        if func is Tensor.to and args[1:] and isinstance(args[1], OnDevice):
            args = (args[0], args[1].device, args[1].dtype)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            items = args[1] if isinstance(args[1], tuple) else (args[1],)
            items = tuple(torch.tensor(i, dtype=torch.int64) if isinstance(i, list) else i for i in items)
            args = (args[0], items, *args[2:])
        if func in (torch.tensor, torch.as_tensor) and _is_mps(kwargs.get("device")):
            return func(*args, **kwargs | {"device": "cpu"}).to(_STAND_IN)
        return func(
            *(_STAND_IN if _is_mps(given) else given for given in args),
            **{name: _STAND_IN if _is_mps(given) else given for name, given in kwargs.items()},
        )


def _is_mps(given: Any) -> bool:
    return isinstance(given, str | torch.device) and str(given) == "mps"
