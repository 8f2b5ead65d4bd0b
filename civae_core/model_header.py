"""What a model file says of itself, read without torch, numpy or safetensors: for answers within a tenth of a second.

Nothing is checked here that `civae_core.model.stored` does not check again before a model is used.
"""

import json
from pathlib import Path
from typing import Any

from civae_core.errors import DataError
from civae_core.os_errors import hint_on_reading

MOST_HEADER_BYTES = 2**24
"""Of a safetensors file: names, shapes and the card."""


def read_header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: eight bytes of length, then that many bytes of text.

    Raises:
        DataError: it cannot be read, or is no safetensors file.
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
    """Attributes of a model by role (`treatments`, `covariates`, `descendants`, `held_out`), as they stand in it.

    Raises:
        DataError: it cannot be read, or is no model of ours.
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
