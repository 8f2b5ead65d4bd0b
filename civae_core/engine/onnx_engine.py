"""The ONNX Runtime engine, on the CPU: it starts in a fraction of the time that importing torch takes."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from civae_core.attributes import AttributeRoles
from civae_core.engine.base import Abducted, Array, Predicted
from civae_core.engine.card import OWN, ExportCard, verified
from civae_core.errors import DataError, UsageError
from civae_core.extras import install, is_there
from civae_core.machine import available_cores
from civae_core.model.calibrated import Calibration
from civae_core.model.familiar import Familiarity
from civae_core.reading import utf8_path

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHUNK = 8
"""Images that a core computes at once: more are no faster, and take more memory."""


class OnnxEngine:
    """The graphs of an export folder, each loaded when first needed; see `Engine` for the methods."""

    def __init__(self, folder: Path, card: ExportCard) -> None:
        self.folder, self.card = folder, card
        self._sessions: dict[tuple[str, int], InferenceSession] = {}

    @classmethod
    def open(cls, folder: Path, model_file: Path | None = None) -> "OnnxEngine":
        """Open an export, after comparing it with its checksums and with the model beside it.

        Raises:
            UsageError: ONNX Runtime is not installed.
            DataError: the export is damaged, or does not match `model_file` as it is now.
        """
        if not is_installed():
            raise UsageError("ONNX Runtime is not installed", hint=install("onnx"))
        with ThreadPoolExecutor(1) as beside:
            card = beside.submit(verified, folder, model_file)
            import onnxruntime  # noqa: F401  # takes longer than the checksums, which another core computes meanwhile

            return cls(folder, card.result())

    @property
    def name(self) -> str:
        return "onnx on the CPU"

    @property
    def roles(self) -> AttributeRoles:
        return self.card.roles

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        return self.card.preprocessing

    @property
    def subjects(self) -> Sequence[Sequence[float]]:
        subjects: list[list[float]] = self.card.model["subjects"]
        return subjects

    @property
    def latent(self) -> int:
        return int(self.card.graphs["draw"].inputs["noise_z"][-1])

    @property
    def calibration(self) -> Calibration:
        return self.card.calibration

    @property
    def familiarity(self) -> Familiarity | None:
        return self.card.familiarity

    def guess(self, y_BCHW: Array) -> Array | None:
        return self.run("predictor", y=y_BCHW)["outputs"] if "predictor" in self.card.graphs else None

    def abduct(self, y_BCHW: Array, x_BX: Array, t_BT: Array) -> Abducted:
        factual = {"y": y_BCHW, "x": x_BX, "t": t_BT}
        found = self.run("abduct", **factual)
        return Abducted(found["reconstruction"], factual | found)

    def predict(self, abducted: Abducted, t_new_BT: Array, *, noise: float, strength: float) -> Predicted:
        found = self.run("predict", **abducted.state, t_new=t_new_BT, noise=noise, strength=strength)
        return Predicted(found["image"], found["mean"], found["effect"])

    def draw(self, x_BX: Array, t_BT: Array, noise_BZ: Array, own_BT: Array | None = None) -> Array:
        # Graphs of format 1, and those of models that do not pair noises, take no t_own.
        own_BT = t_BT if own_BT is None else own_BT
        return self.run("draw", x=x_BX, t=t_BT, noise_z=noise_BZ, **{OWN: own_BT})["image"]

    def run(self, graph: str, **values: Array | float) -> dict[str, Array]:
        """Outputs of a graph by name, for inputs by name; values that the graph does not take are ignored.

        A single image uses all cores. Several images are distributed over the cores, a few at a time, which costs
        less than parallelising every operation.

        Raises:
            DataError: the graph cannot be loaded.
        """
        entry = self.card.graphs[graph]
        inputs = {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}
        inputs = {name: value for name, value in inputs.items() if name in entry.inputs}
        count = max(len(value) for value in inputs.values() if value.ndim)
        cores = _threads()
        at_once = min(CHUNK, -(-count // cores))
        session = self._session(graph, cores if count == 1 else 1)
        wanted = {entry.name for entry in session.get_inputs()}

        def outputs_from(start: int) -> list[Array]:
            rows = slice(start, start + at_once)
            given = {name: value[rows] if value.ndim else value for name, value in inputs.items()}
            return session.run(entry.outputs, {name: given[name] for name in wanted})

        starts = range(0, count, at_once)
        if len(starts) == 1:
            return dict(zip(entry.outputs, outputs_from(0), strict=True))
        with ThreadPoolExecutor(min(cores, len(starts))) as pool:
            parts = list(pool.map(outputs_from, starts))
        return {name: np.concatenate(rows) for name, *rows in zip(entry.outputs, *parts, strict=True)}

    def _session(self, graph: str, threads: int) -> "InferenceSession":
        """The graph on a given number of threads, loaded on first use."""
        key = (graph, threads)
        if key not in self._sessions:
            self._sessions[key] = open_session(self.folder / self.card.graphs[graph].file, threads)
        return self._sessions[key]


def is_installed() -> bool:
    """Whether ONNX Runtime can be imported; this check does not import it."""
    return is_there("onnxruntime")


def open_session(path: Path, threads: int) -> "InferenceSession":
    """Load a graph, to be run on a given number of threads.

    Raises:
        DataError: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: warnings are about graphs that nobody here can change
    try:
        with utf8_path(path.parent) as folder:  # where the graph finds its weights
            return onnxruntime.InferenceSession(
                folder / path.name, options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:  # ONNX Runtime's exceptions have no narrower base class in common
        raise DataError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({str(error).strip().splitlines()[0]})",
            hint="export the model again, or use --engine torch",
        ) from error


def _threads() -> int:
    """Number of threads that torch would use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else available_cores()
