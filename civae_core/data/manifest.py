"""dataset.yml, the manifest of a prepared folder. It is written last, so a folder without it is never complete."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from civae_core.attributes import LARGEST, Attribute
from civae_core.bounded_yaml import plain_values
from civae_core.data.images import Preprocessing
from civae_core.errors import DataError
from civae_core.file_names import MANIFEST, MOST_MANIFEST_BYTES, PARTIAL
from civae_core.files import write_text
from civae_core.os_errors import hint_on_reading
from civae_core.reading import read_at_most

FORMAT = 1
ATTRIBUTES_FILE = "attributes.safetensors"


def shard_name(number: int) -> str:
    return f"images-{number:05d}.safetensors"


Whole = Annotated[int, Field(ge=0, lt=2**62)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A data file; `images` is None for the file of attributes."""

    bytes: Whole
    sha256: str
    images: Whole | None = None


class TruthEntry(_Part):
    """A known intervention, and the number of images whose outcome under it is stored."""

    name: str
    do: dict[str, Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | Literal["flip"]]
    images: Whole


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
    images: Annotated[int, Field(gt=0, lt=2**40)]
    preprocessing: dict[str, int | None]
    splits: dict[Literal["train", "valid", "test"], Whole]
    attributes: list[AttributeEntry]
    truth: list[TruthEntry] = []
    rejected: Whole = 0
    files: dict[Annotated[str, Field(pattern=r"^(images-\d{5}|attributes)\.safetensors$")], FileEntry]
    preparation: str

    @model_validator(mode="after")
    def _makes_sense(self) -> "Manifest":
        names = [attribute.name for attribute in self.table]  # `table` checks each attribute
        if not names or len(set(names)) < len(names):
            raise ValueError("attributes: none, or one listed twice")
        if Preprocessing.from_dict(self.preprocessing).to_dict() != self.preprocessing:
            raise ValueError("preprocessing: a key is missing")
        return self

    @property
    def table(self) -> tuple[Attribute, ...]:
        return tuple(Attribute.from_dict(entry.model_dump()) for entry in self.attributes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the data files' names and checksums; equal data have equal fingerprints on any machine."""
        lines = (f"{name} {entry.sha256}\n" for name, entry in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = yaml.safe_dump(manifest.model_dump(), sort_keys=False, allow_unicode=True, width=120)
    write_text(folder / MANIFEST, text)


def read_manifest(folder: Path) -> Manifest:
    """Read dataset.yml.

    Raises:
        DataError: the folder is not a prepared one, is half done, damaged, or of another format version.
    """
    path = folder / MANIFEST
    hint = "write one with `civae prepare-data SOURCE --out DATA`"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of prepared data", hint=hint)
    try:
        text = read_at_most(path, MOST_MANIFEST_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        if (folder / PARTIAL).is_dir():
            raise DataError(
                f"{folder} is only half prepared",
                hint="run the same prepare-data command again to continue",
            ) from error
        raise DataError(f"{folder} is not prepared data: it has no {MANIFEST}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"cannot read {path}: {reason or error}", hint=hint_on_reading(error, prepare_anew(folder))
        ) from error
    try:
        values = plain_values(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", hint=prepare_anew(folder)) from error
    if not isinstance(values, dict) or "civae_format" not in values:
        raise DataError(f"{path} was not written by civae prepare-data", hint=hint)
    if values["civae_format"] != FORMAT or type(values["civae_format"]) is not int:
        raise DataError(
            f"{path} has format version {values['civae_format']!r}; this civae reads version {FORMAT}",
            hint="prepare the data again, or use the civae that wrote it",
        )
    try:
        return Manifest.model_validate(values, strict=True)
    except DataError as error:
        raise DataError(f"{path} is damaged: {error.message}", hint=prepare_anew(folder)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is damaged: {place}: {first['msg']}", hint=prepare_anew(folder)) from error


def prepare_anew(folder: Path) -> str:
    """Hint for a damaged prepared folder, worded for every command, since most commands prepare nothing."""
    return f"copy {folder} again, or delete it and prepare the data again"
