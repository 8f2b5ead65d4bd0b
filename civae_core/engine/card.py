"""An export folder: what belongs to it, and whether it is whole and of the model that lies beside it."""

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
"""2: draws of a model that pairs noises take `OWN` too. Graphs of format 1 go on to draw without it."""
CARD = "card.json"
WEIGHTS = "weights.bin"
"""All large numbers of all graphs, each once."""
OWN = "t_own"
"""Input of `draw`: the treatments under which the noise is the subjects'."""


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its file with checksum, its tensors by name, and what was found when it was checked."""

    file: str
    sha256: str
    inputs: dict[str, list[int | str]]
    """Shape of each, `batch` standing for any number of images; `[]` is a single number."""
    outputs: list[str]
    largest_difference: float
    """From torch's outputs on the images it was checked with."""


@dataclass(frozen=True)
class ExportCard:
    """What travels with the graphs: everything but the numbers."""

    model_file: str
    """Name of the safetensors file that was exported, beside the folder."""
    model_sha256: str
    weights_sha256: str
    graphs: dict[str, GraphEntry]
    roles: AttributeRoles
    calibration: Calibration
    familiarity: Familiarity | None
    model: dict[str, Any]
    """The model file's own metadata, whose keys `ModelCard` explains."""
    versions: dict[str, str]
    """Of civae, torch and ONNX when it was written."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a photograph is brought to the model: crop, size, channels."""
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
    """Where the ONNX export of a model file lies: `model-onnx` beside `model.safetensors`."""
    return model_file.with_name(f"{model_file.stem}-onnx")


def read_card(folder: Path) -> ExportCard:
    """The card of an export folder.

    Raises:
        DataError: it is none, damaged, or of a newer format.
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
    """The card of an export whose files are those that were written, and whose model is still the same.

    Args:
        model_file: the safetensors file that the export must be of; None where there is none to compare with.

    Raises:
        DataError: a file is missing or changed, or the model has been replaced since.
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
