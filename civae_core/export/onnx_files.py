"""`civae export --format onnx`: write a model's graphs beside its weights, after checking them."""

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor
from torch.fx import config as tracing

from civae_core import __version__
from civae_core.engine.card import CARD, WEIGHTS, ExportCard, GraphEntry, export_folder, read_card
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.export.check import examples, largest_differences
from civae_core.export.folders import replaced
from civae_core.export.graphs import SINGLE, Function, functions_of
from civae_core.export.rewrite import settled, simplify, spell_out_softmax, strip
from civae_core.extras import install, missing
from civae_core.files import sha256_of, sync, write_json
from civae_core.model.stored import StoredModel
from civae_core.progress import progress

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4
"""Largest accepted difference from torch: absolute for outputs up to 1, relative for larger ones."""
TRACED_WITH = 3
"""Batch size that graphs are traced with; they are checked with others."""
SHARED_FROM = 1024
"""Size in bytes from which a tensor goes into the weights that all graphs share."""

log = logging.getLogger(__name__)


def export_onnx(stored: StoredModel, folder: Path | None = None) -> tuple[Path, ExportCard]:
    """Write a model's graphs and their card, completely or not at all, replacing an older export.

    Args:
        stored: the model, on the CPU.
        folder: where to write; by default `model-onnx` beside the model file, where the engines look for it.

    Raises:
        UsageError: a package needed for writing or checking is not installed, or `folder` holds something else
            (`replaced`).
        CivaeError: the folder cannot be written, or the graphs answer differently from torch.
    """
    _require_packages()
    folder = folder or export_folder(stored.path)
    functions = functions_of(stored.model, stored.card.config.objective)
    with replaced(folder, _files_of, "an ONNX export") as temporary:
        card = _written(stored, functions, temporary)
        differences = largest_differences(stored, functions, OnnxEngine(temporary, card))
        worst = max(differences, key=lambda name: (math.isnan(differences[name]), differences[name]))
        if not differences[worst] <= TOLERANCE:
            raise CivaeError(
                f"{folder}: graph {worst!r} differs from torch by {differences[worst]:.2g}, more than {TOLERANCE:g}",
                hint="report this with the model's config; --engine torch is not affected",
            )
        entries = {
            name: GraphEntry(e.file, e.sha256, e.inputs, e.outputs, differences[name])
            for name, e in card.graphs.items()
        }
        card = ExportCard(**{**vars(card), "graphs": entries})
        write_json(temporary / CARD, card.to_json())
    return folder, card


def _files_of(folder: Path) -> tuple[str, ...]:
    """The files of an earlier export, as its card names them; none if the folder is not one."""
    try:
        card = read_card(folder)
    except DataError:
        return ()
    return (CARD, WEIGHTS, *(entry.file for entry in card.graphs.values()))


def _written(stored: StoredModel, functions: Mapping[str, Function], folder: Path) -> ExportCard:
    """Write all graphs and their shared weights into a folder; return their card, with nothing checked yet."""
    tensors_of = examples(stored, TRACED_WITH)
    entries = {}
    with (
        (folder / WEIGHTS).open("wb") as file,
        progress("exporting", len(functions), unit="graphs") as shown,
    ):
        weights = _SharedWeights(file)
        for name, function in functions.items():
            tensors = tuple(tensors_of[name][key] for key in function.inputs)
            graph = trace(function, tensors)
            weights.take_from(graph)
            path = folder / f"{name}.onnx"
            path.write_bytes(graph.SerializeToString())
            sync(path)
            shapes = {
                key: [] if key in SINGLE else ["batch", *tensor.shape[1:]]
                for key, tensor in zip(function.inputs, tensors, strict=True)
            }
            entries[name] = GraphEntry(
                path.name, sha256_of(path), shapes, list(function.outputs), float("nan")
            )
            shown.advance()
    sync(folder / WEIGHTS)
    return ExportCard(
        model_file=stored.path.name,
        model_sha256=sha256_of(stored.path),
        weights_sha256=sha256_of(folder / WEIGHTS),
        graphs=entries,
        roles=stored.card.roles,
        calibration=stored.card.calibration,
        familiarity=stored.card.familiarity,
        model=json.loads(stored.card.to_json()),
        versions=_versions(),
    )


def trace(function: Function, examples: tuple[Tensor, ...]) -> "ModelProto":
    """Trace the function into an ONNX graph with named tensors, for batches of any size."""
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({} if name in SINGLE else {0: batch} for name in function.inputs)
    with _silence(), _without_origins():
        program = torch.onnx.export(
            function,
            examples,
            dynamo=True,
            verbose=False,
            optimize=False,  # see `simplify`
            dynamic_shapes=(shapes,),
            input_names=list(function.inputs),
            output_names=list(function.outputs),
        )
        assert program is not None
        simplify(program.model)
        graph: ModelProto = program.model_proto
    spell_out_softmax(graph)
    graph = settled(graph)
    strip(graph)
    return graph


class _SharedWeights:
    """One file that holds each large tensor once, however many graphs use it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.places: dict[bytes, int] = {}

    def take_from(self, graph: "ModelProto") -> None:
        """Move the graph's large tensors into the file, and leave references to their places."""
        from onnx.external_data_helper import set_external_data

        for tensor in graph.graph.initializer:
            data = tensor.raw_data
            if len(data) < SHARED_FROM:
                continue
            key = hashlib.sha256(data).digest()
            if key not in self.places:
                self.file.write(bytes(-self.file.tell() % 64))
                self.places[key] = self.file.tell()
                self.file.write(data)
            set_external_data(tensor, WEIGHTS, offset=self.places[key], length=len(data))
            tensor.ClearField("raw_data")


def _require_packages() -> None:
    if missing("onnx"):
        raise UsageError("--format onnx: the extra `onnx` is not installed", hint=install("onnx"))


def _versions() -> dict[str, str]:
    import onnx
    import onnxruntime

    return {
        "civae": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


@contextmanager
def _silence() -> Iterator[None]:
    """Hide the exporter's remarks about its own workings from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _without_origins() -> Iterator[None]:
    """Keep the exporter from recording each node's call stack, which takes long and is removed by `strip` anyway.

    Older versions of PyTorch record it in any case.
    """
    before = getattr(tracing, "do_not_emit_stack_traces", False)
    tracing.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        tracing.do_not_emit_stack_traces = before
