"""Read the header of a model file without torch, numpy or safetensors, to answer within a tenth of a second.

Everything checked here is checked again by `civae_core.model.stored` before a model is used.
"""

import json
from pathlib import Path
from typing import Any

from civae_core.errors import DataError
from civae_core.os_errors import hint_on_reading

MOST_HEADER_BYTES = 2**24
"""Largest header of a safetensors file, which holds names, shapes and the card."""


def read_header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: eight bytes of length, then that many bytes of text.

    Raises:
        DataError: the file cannot be read, or is not a safetensors file.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= MOST_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(opened.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        return header
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: not a readable safetensors file ({error})",
            hint=hint_on_reading(error, "copy it again, or use another checkpoint"),
        ) from error


def read_roles(file: Path) -> dict[str, list[dict[str, Any]]]:
    """A model's attributes by role (`treatments`, `covariates`, `descendants`, `held_out`), as stored in the file.

    Raises:
        DataError: the file cannot be read, or is not a civae model.
    """
    try:
        card = json.loads(read_header(file)["__metadata__"]["civae"])
        roles: dict[str, list[dict[str, Any]]] = card["roles"]
        for group in roles.values():
            for attribute in group:
                if not isinstance(attribute["name"], str):
                    raise TypeError("an attribute's name is no text")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file}: not a civae model",
            hint="name a run, or the model.safetensors of a checkpoint of one",
        ) from error
    return roles
