"""Answers through ONNX Runtime on the CPU: starts in a fraction of the time that importing torch takes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from civae_core.attributes import AttributeRoles
from civae_core.engine.base import Abducted, Array, Predicted
from civae_core.engine.card import ExportCard, verified
from civae_core.errors import DataError, UsageError
from civae_core.extras import install, is_there
from civae_core.machine import available_cores
from civae_core.model.calibrated import Calibration
from civae_core.model.familiar import Familiarity

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHUNK = 8
"""Images computed at once: more at a time are no faster, and take more memory."""


class OnnxEngine:
    """The graphs of an export folder, each loaded when it is first needed; see `Engine` for what they answer."""

    def __init__(self, folder: Path, card: ExportCard) -> None:
        self.folder, self.card = folder, card
        self._sessions: dict[str, InferenceSession] = {}

    @classmethod
    def open(cls, folder: Path, model_file: Path | None = None) -> "OnnxEngine":
        """Opens an export after comparing it with its checksums and with the model beside it.

        Raises:
            UsageError: ONNX Runtime is not installed.
            DataError: the export is damaged, or of another model than `model_file` now is.
        """
        if not is_installed():
            raise UsageError("ONNX Runtime is not installed", hint=install("onnx"))
        return cls(folder, verified(folder, model_file))

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

    def draw(self, x_BX: Array, t_BT: Array, noise_BZ: Array) -> Array:
        return self.run("draw", x=x_BX, t=t_BT, noise_z=noise_BZ)["image"]

    def run(self, graph: str, **values: Array | float) -> dict[str, Array]:
        """Outputs of a graph by name, for inputs by name; values that the graph does not look at are left out.

        Raises:
            DataError: the folder's graph cannot be loaded.
        """
        session = self._sessions.get(graph) or self._load(graph)
        wanted = [entry.name for entry in session.get_inputs()]
        inputs = {name: np.asarray(values[name], dtype=np.float32) for name in wanted}
        outputs = self.card.graphs[graph].outputs
        count = max(len(value) for value in inputs.values() if value.ndim)
        parts = [
            session.run(outputs, {n: v[start : start + CHUNK] if v.ndim else v for n, v in inputs.items()})
            for start in range(0, count, CHUNK)
        ]
        return {name: np.concatenate(rows) for name, *rows in zip(outputs, *parts, strict=True)}

    def _load(self, graph: str) -> "InferenceSession":
        path = self.folder / self.card.graphs[graph].file
        session = self._sessions[graph] = open_session(path)
        return session


def is_installed() -> bool:
    """Whether ONNX Runtime can be imported; finding out does not import it."""
    return is_there("onnxruntime")


def open_session(path: Path) -> "InferenceSession":
    """A graph, ready to run on as many cores as torch would use.

    Raises:
        DataError: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3  # errors: its warnings are about graphs that nobody here can change
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but this
        raise DataError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({str(error).strip().splitlines()[0]})",
            hint="export the model again, or use --engine torch",
        ) from error


def _threads() -> int:
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else available_cores()
