"""The card of an export folder: what belongs to it, and whether it is intact and matches the model beside it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from civae_core.attributes import AttributeRoles
from civae_core.errors import DataError
from civae_core.files import sha256_of
from civae_core.model.calibrated import Calibration
from civae_core.model.familiar import Familiarity
from civae_core.reading import read_json

FORMAT = 2
"""In format 2, `draw` also takes `OWN` if the model pairs noises. Graphs of format 1 still draw without it."""
CARD = "card.json"
WEIGHTS = "weights.bin"
"""All large tensors of all graphs, each stored once."""
OWN = "t_own"
"""Input of `draw`: the subjects' own treatments, under which their noise was drawn."""


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its file with checksum, its tensors by name, and the result of its check."""

    file: str
    sha256: str
    inputs: dict[str, list[int | str]]
    """Shape of each input, where `batch` stands for any number of images; `[]` is a single number."""
    outputs: list[str]
    largest_difference: float
    """Largest difference from torch's outputs on the images it was checked with."""


@dataclass(frozen=True)
class ExportCard:
    """What accompanies the graphs: everything but the weights."""

    model_file: str
    """Name of the exported safetensors file, which lies beside the folder."""
    model_sha256: str
    weights_sha256: str
    graphs: dict[str, GraphEntry]
    roles: AttributeRoles
    calibration: Calibration
    familiarity: Familiarity | None
    model: dict[str, Any]
    """The model file's own metadata, whose keys `ModelCard` explains."""
    versions: dict[str, str]
    """Versions of civae, torch, onnx and onnxruntime at the time of the export."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a photograph becomes the model's input: crop, size, channels."""
        return dict(self.model["preprocessing"])

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model_file": self.model_file,
            "model_sha256": self.model_sha256,
            "weights_sha256": self.weights_sha256,
            "graphs": {name: asdict(entry) for name, entry in self.graphs.items()},
            "versions": self.versions,
            "model": self.model,
        }


def export_folder(model_file: Path) -> Path:
    """The folder of a model file's ONNX export: `model-onnx` beside `model.safetensors`."""
    return model_file.with_name(f"{model_file.stem}-onnx")


def read_card(folder: Path) -> ExportCard:
    """Read the card of an export folder.

    Raises:
        DataError: it is not an export folder, or is damaged or of a newer format.
    """
    path = folder / CARD
    try:
        values = read_json(path)
        if values["format"] > FORMAT:
            raise DataError(
                f"{folder}: written in format {values['format']}, this version reads up to {FORMAT}",
                hint="update civae, or export the model again",
            )
        return ExportCard(
            model_file=values["model_file"],
            model_sha256=values["model_sha256"],
            weights_sha256=values["weights_sha256"],
            graphs={name: GraphEntry(**entry) for name, entry in values["graphs"].items()},
            roles=AttributeRoles.from_dict(values["model"]["roles"]),
            calibration=Calibration.from_dict(values["model"]["calibration"]),
            familiarity=Familiarity.from_dict(values["model"]["familiarity"])
            if "familiarity" in values["model"]
            else None,
            model=values["model"],
            versions=values["versions"],
        )
    except OSError as error:
        raise DataError(
            f"{folder}: not an ONNX export ({error.strerror or error})", hint="write one with `civae export`"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"{CARD}: {type(error).__name__}: {error}") from error


def verified(folder: Path, model_file: Path | None) -> ExportCard:
    """The card of an export, after checking that its files are intact and that its model is still the same.

    Args:
        model_file: the safetensors file that the export must match; None if there is none to compare with.

    Raises:
        DataError: a file is missing, changed or damaged, or the model has been replaced since.
    """
    card = read_card(folder)
    if model_file is not None and sha256_of(model_file) != card.model_sha256:
        raise DataError(
            f"{folder}: this export does not match {model_file} as it is now",
            hint=f"export it again: civae export {model_file}",
        )
    wanted = {entry.file: entry.sha256 for entry in card.graphs.values()} | {WEIGHTS: card.weights_sha256}
    for name, digest in wanted.items():
        if Path(name).name != name:
            raise _damaged(folder, f"{CARD} names {name!r}, which is not a file in the folder")
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise _damaged(folder, f"{name}: {error.strerror or error}") from error
        if found != digest:
            raise _damaged(folder, f"{name} does not match its checksum")
    return card


def _damaged(folder: Path, why: str) -> DataError:
    return DataError(f"{folder}: a damaged ONNX export ({why})", hint="export the model again")
