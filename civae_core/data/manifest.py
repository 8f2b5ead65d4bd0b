"""dataset.yml: what a prepared folder holds. It is written last, so a folder without it is never taken for whole."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from civae_core.assignments import Intervention
from civae_core.attributes import Attribute
from civae_core.errors import DataError
from civae_core.files import write_text

FORMAT = 1
MANIFEST = "dataset.yml"
ATTRIBUTES_FILE = "attributes.safetensors"
PARTIAL = ".partial"
"""Sub-folder for work in progress."""


def shard_name(number: int) -> str:
    return f"images-{number:05d}.safetensors"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A data file; `images` is None for the file of attributes."""

    bytes: int
    sha256: str
    images: int | None = None


class TruthEntry(_Part):
    """A known intervention and for how many images its outcome is stored."""

    name: str
    do: Intervention
    images: int


class AttributeEntry(_Part):
    """A column of the table, with statistics of the training split."""

    name: str
    kind: Literal["binary", "continuous"]
    low: float
    high: float
    mean: float
    std: float


class Manifest(_Part):
    """The content of dataset.yml."""

    civae_format: int = FORMAT
    name: str
    source: dict[str, Any]
    images: int = Field(gt=0)
    preprocessing: dict[str, int | None]
    splits: dict[Literal["train", "valid", "test"], int]
    attributes: list[AttributeEntry]
    truth: list[TruthEntry] = []
    rejected: int = 0
    files: dict[Annotated[str, Field(pattern=r"^(images-\d{5}|attributes)\.safetensors$")], FileEntry]
    preparation: str

    @property
    def table(self) -> tuple[Attribute, ...]:
        return tuple(Attribute.from_dict(entry.model_dump()) for entry in self.attributes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the data files' names and checksums: equal data, equal fingerprint, on any machine."""
        lines = (f"{name} {entry.sha256}\n" for name, entry in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = yaml.safe_dump(manifest.model_dump(), sort_keys=False, allow_unicode=True, width=120)
    write_text(folder / MANIFEST, text)


def read_manifest(folder: Path) -> Manifest:
    """Reads dataset.yml.

    Raises:
        DataError: the folder is not a prepared one, was left half-done, or is of another format version.
    """
    path = folder / MANIFEST
    hint = "write one with `civae prepare-data SOURCE --out DATA`"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of prepared data", hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if (folder / PARTIAL).is_dir():
            raise DataError(
                f"{folder} is only half prepared",
                hint="run the same prepare-data command again; it continues",
            ) from error
        raise DataError(f"{folder} is not prepared data: it has no {MANIFEST}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "civae_format" not in values:
        raise DataError(f"{path} was not written by civae prepare-data", hint=hint)
    if values["civae_format"] != FORMAT:
        raise DataError(
            f"{path} has format version {values['civae_format']!r}; this civae reads version {FORMAT}",
            hint="prepare the data again, or use the civae that wrote it",
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is damaged: {place}: {first['msg']}") from error
