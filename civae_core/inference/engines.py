"""Choose the engine that answers: the ONNX export beside a model if it is usable, else torch."""

import logging
from pathlib import Path

from civae_core.engine.base import Engine
from civae_core.engine.card import CARD, export_folder, read_card
from civae_core.engine.onnx_engine import OnnxEngine, is_installed
from civae_core.errors import DataError, UsageError
from civae_core.machine import nvidia_driver
from civae_core.model_paths import find_model_file
from civae_core.overfitting import warn_if_overfit

ENGINES = ("auto", "torch", "onnx")

log = logging.getLogger(__name__)


def open_engine(path: Path, engine: str = "auto", device: str = "auto") -> Engine:
    """Open a trained model, given by run, checkpoint folder, model file or ONNX export.

    `auto` uses the export beside the model, unless ONNX Runtime is not installed, the export is damaged or out of
    date (a warning says so), a device other than the CPU is requested, or the machine has an NVIDIA GPU that torch
    can use. A warning is logged if the run has fallen behind its best checkpoint.

    Raises:
        UsageError: unknown path, engine or device; or ONNX Runtime is requested but not installed.
        DataError: the model cannot be read, or the requested export is missing, damaged or out of date.
    """
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: unknown engine", hint=f"use {', '.join(ENGINES)}")
    opened = _opened(path, engine, device)
    warn_if_overfit(path)
    log.debug("engine: %s", opened.name)
    return opened


def _opened(path: Path, engine: str, device: str) -> Engine:
    if (path / CARD).is_file():
        return _open_export(path, engine, device)
    file = find_model_file(path)
    folder = export_folder(file)
    if engine == "onnx":
        _require_cpu(device)
        if not folder.exists():
            raise DataError(f"{file}: has no ONNX export", hint=f"write one with `civae export {path}`")
        return OnnxEngine.open(folder, file)
    if engine == "auto" and device in ("auto", "cpu") and (folder / CARD).is_file() and is_installed():
        if device == "auto" and nvidia_driver() is not None:
            log.debug("%s: not used, since torch can use the GPU", folder)
        else:
            try:
                return OnnxEngine.open(folder, file)
            except DataError as error:
                log.warning("%s; using torch instead (%s)", error.message, error.hint)
    return _open_torch(file, device)


def _open_export(folder: Path, engine: str, device: str) -> Engine:
    """Open an export that was named directly, checked against the model beside it if that still exists."""
    if engine == "torch":
        raise UsageError(f"{folder}: is an ONNX export, which torch cannot run", hint="name the model itself")
    _require_cpu(device)
    file = folder.resolve().parent / read_card(folder).model_file
    return OnnxEngine.open(
        folder, file if export_folder(file) == folder.resolve() and file.is_file() else None
    )


def _require_cpu(device: str) -> None:
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--device {device}: the onnx engine runs only on the CPU", hint="use --engine torch"
        )


def _open_torch(file: Path, device: str) -> Engine:
    from civae_core.inference.torch_engine import TorchEngine
    from civae_core.model.stored import load_model
    from civae_core.training.device import choose_device

    return TorchEngine(load_model(file, choose_device(device)))
