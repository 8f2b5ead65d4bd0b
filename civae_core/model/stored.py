"""A trained model as one file: `model.safetensors`, whose metadata holds everything needed to use it."""

import errno
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from civae_core import __version__
from civae_core.attributes import LARGEST, AttributeRoles
from civae_core.config import Config
from civae_core.data.images import Preprocessing
from civae_core.errors import DataError, UsageError
from civae_core.files import apply_umask
from civae_core.model.calibrated import UNCALIBRATED, Calibration
from civae_core.model.familiar import Familiarity
from civae_core.model.intact_vae import IntactVAE
from civae_core.model_header import MOST_HEADER_BYTES
from civae_core.model_paths import find_model_file
from civae_core.reading import parse_json, require_regular, utf8_path

Network = TypeVar("Network", bound=torch.nn.Module)

FORMAT = 5
UNKNOWN_BEFORE: dict[int, dict[str, Any]] = {
    5: {"looks_mask_width": None},
    3: {"pairing": "none"},
    2: {"decoder": "direct", "noise_mask": "none", "latent_mask_width": None},
}
"""By format: model settings that files of earlier formats may lack, with the values their models had."""


@dataclass(frozen=True)
class ModelCard:
    """Everything that is stored with the weights."""

    config: Config
    roles: AttributeRoles
    preprocessing: dict[str, Any]
    """How a photograph is prepared for the model: crop, size, channels."""
    images_seen: int
    data: dict[str, str]
    """Name, path and fingerprint of the prepared data."""
    subjects: list[list[float]]
    """Treatments and covariates of some training subjects, for sampling, in the order of `roles.inputs`."""
    calibration: Calibration = UNCALIBRATED
    """Calibration of the attribute predictor; none in files that predate it."""
    familiarity: Familiarity | None = None
    """How well held-out images are reconstructed; None if unknown, as in files that predate this field."""
    paired: bool = False
    """Whether the last step of training, which pairs latent noises, has been done."""
    photographs: int | None = None
    """Number of distinct images trained on; None in files that predate this field."""

    @property
    def lacks_pairing(self) -> bool:
        """Whether latent noises still have to be paired, as in a checkpoint from the middle of training."""
        return bool(self.config.model.turned) and not self.paired

    def build(self) -> IntactVAE:
        """Build the network with newly initialised weights."""
        size, channels = self.preprocessing["size"], self.preprocessing["channels"]
        return IntactVAE(self.config.model, self.roles, size, channels)

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "version": __version__,
                "config": self.config.model_dump(),
                "roles": self.roles.to_dict(),
                "preprocessing": self.preprocessing,
                "images_seen": self.images_seen,
                "data": self.data,
                "subjects": self.subjects,
                "calibration": self.calibration.to_dict(),
                **({"familiarity": self.familiarity.to_dict()} if self.familiarity else {}),
                "paired": self.paired,
                **({"photographs": self.photographs} if self.photographs else {}),
            },
            allow_nan=False,
        )


@dataclass(frozen=True)
class StoredModel:
    """A model loaded from disk, in evaluation mode and on its device."""

    model: IntactVAE
    card: ModelCard
    path: Path


def save_model(model: IntactVAE, card: ModelCard, path: Path) -> None:
    """Write weights and card to `path` (not atomic in itself; checkpoints rename a whole folder).

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    save_tensors(path, model.state_dict(), {"civae": card.to_json()})


def read_card(file: Path) -> ModelCard:
    """Read the card of a model file without its weights.

    Raises:
        DataError: the file is not a safetensors file, truncated, not a civae model, damaged, of a newer format, or of
            an old one whose grids of latents are no longer supported.
    """
    return _parse_card(read_metadata(file), file)


def load_model(path: Path, device: torch.device | str = "cpu") -> StoredModel:
    """Load a model from a run, a checkpoint folder or a file.

    Raises:
        UsageError: there is no such path.
        DataError: the folder holds no checkpoint, `read_card` fails, or the tensors do not fit the card.
    """
    file = find_model_file(path)
    card = read_card(file)
    try:
        model = build_to_fit(card.build, file)
    except UsageError as error:  # the stored size and stages do not fit: here the file is to blame
        raise _does_not_fit(file, error.message) from error
    load_weights(model, read_tensors(file), file)
    return StoredModel(model.to(device).eval().requires_grad_(False), card, file)


def build_to_fit(build: Callable[[], Network], file: Path) -> Network:
    """Build the network for a file's tensors; memory is allocated only once their shapes are known to fit.

    A malicious card may ask for a network of any size, and a sparse file may appear to contain one.

    Raises:
        DataError: the tensors do not fit the network that `build` makes; names the first that does not.
    """
    with torch.device("meta"):
        outline = build()
    _require_fit(outline, read_shapes(file), file)
    return build()


def read_tensors(file: Path, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """Read tensors of a safetensors file onto the CPU: all, or those of `names` that are present.

    Raises:
        DataError: the file cannot be read as a safetensors file.
    """
    with _opened(file) as opened:
        there = opened.keys()
        return {name: opened.get_tensor(name) for name in there if names is None or name in names}


def read_shapes(file: Path) -> dict[str, list[int]]:
    """Read the shape of each tensor of a safetensors file, from its header alone.

    Raises:
        DataError: the file cannot be read as a safetensors file.
    """
    with _opened(file) as opened:
        return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118


def read_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        DataError: the file cannot be read as a safetensors file.
    """
    with _opened(file) as opened:
        return opened.metadata() or {}


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device and layout to a safetensors file, with the permissions that the umask sets.

    Not atomic: callers that need this must write beside the target and rename.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata=metadata)
    except SafetensorError as error:
        # The library gives the operating system's error number only in its message.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    apply_umask(path)


def load_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Load tensors into a model, strictly.

    Raises:
        DataError: a tensor is missing, unexpected, has another shape (both are named), or is floating-point where the
            model's is not, or the reverse.
    """
    _require_fit(model, {name: list(tensor.shape) for name, tensor in tensors.items()}, file)
    for name, wanted in model.state_dict().items():
        if tensors[name].is_floating_point() != wanted.is_floating_point():
            raise _does_not_fit(file, f"{name} has type {tensors[name].dtype}, the model's is {wanted.dtype}")
    model.load_state_dict(tensors)


def _require_fit(model: torch.nn.Module, shapes: Mapping[str, list[int]], file: Path) -> None:
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise _does_not_fit(file, f"{name} is missing")
        if name not in expected:
            raise _does_not_fit(file, f"{name} is not part of the model")
        if shapes[name] != expected[name]:
            raise _does_not_fit(file, f"{name} has shape {shapes[name]}, the model's is {expected[name]}")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file; errors of the library or the operating system are raised as a DataError."""
    try:
        require_regular(file)
        with file.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise OSError(errno.EFBIG, f"a header of {length:,} bytes, more than any model has")
        try:
            with utf8_path(file) as path:
                tensors = safe_open(path, framework="pt")
        except RuntimeError as error:  # raised by torch if the file is too large to be mapped
            raise OSError(errno.ENOMEM, str(error)) from error
        with tensors as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _unreadable(file, reason or error) from error


def _parse_card(metadata: dict[str, str], file: Path) -> ModelCard:
    if "civae" not in metadata:
        raise DataError(f"{file}: a safetensors file, but not a civae model", hint="see `civae info PATH`")
    try:
        values = parse_json(metadata["civae"])
        if type(values["format"]) is not int or values["format"] < 1:
            raise ValueError(f"format {values['format']!r}")
        newer = values["format"] > FORMAT
        for before, unknown in UNKNOWN_BEFORE.items():
            if values["format"] < before:
                values["config"]["model"] = unknown | values["config"]["model"]
        preprocessing = None if newer else Preprocessing.from_dict(values["preprocessing"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise _damaged(file, error) from error
    if preprocessing is None:
        raise DataError(
            f"{file}: written in format {values['format']}, this version reads up to {FORMAT}",
            hint="update civae",
        )
    try:
        card = ModelCard(
            config=Config.model_validate(values["config"]),
            roles=AttributeRoles.from_dict(values["roles"]),
            preprocessing=preprocessing.to_dict(),
            images_seen=values["images_seen"],
            data={key: str(values["data"][key]) for key in ("name", "path", "fingerprint")},
            subjects=[[float(value) for value in row] for row in values["subjects"]],
            calibration=Calibration.from_dict(values["calibration"])
            if "calibration" in values
            else UNCALIBRATED,
            familiarity=Familiarity.from_dict(values["familiarity"]) if "familiarity" in values else None,
            paired=values.get("paired", False) is True,
            photographs=_count(values.get("photographs")),
        )
        _require_sense(card)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _damaged(file, error) from error
    if values["format"] < 4 and card.config.model.grids and card.config.model.decoder == "layered":
        raise DataError(
            f"{file}: written in format {values['format']}, whose grids of latents placed layers; "
            "they paint detail now",
            hint="train it again, with or without model.scales",
        )
    return card


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"photographs {value!r}")
    return value


def _require_sense(card: ModelCard) -> None:
    """Raise a ValueError for a card whose values have the right types but contradict each other or make no sense."""
    inputs = card.roles.inputs
    named = (card.config.data.treatment, card.config.data.covariates)
    roles = ([a.name for a in card.roles.treatments], [a.name for a in card.roles.covariates])
    if named != roles:
        raise ValueError("its config and its roles name different attributes")
    if type(card.images_seen) is not int or card.images_seen < 0:
        raise ValueError(f"images_seen {card.images_seen!r}")
    numbers = [value for row in card.subjects for value in row]
    if any(len(row) != len(inputs) for row in card.subjects) or not all(abs(n) <= LARGEST for n in numbers):
        raise ValueError("subjects do not fit the attributes")


def _damaged(file: Path, error: Exception) -> DataError:
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return DataError(f"{file}: its metadata is damaged ({reason})", hint="use another checkpoint")


def _unreadable(file: Path, error: object) -> DataError:
    return DataError(
        f"{file}: not a readable safetensors file ({error})",
        hint="it may be truncated or of another kind; use another checkpoint, or train again",
    )


def _does_not_fit(file: Path, why: str) -> DataError:
    return DataError(f"{file}: does not fit the model: {why}", hint="it belongs to another configuration")
