"""Save and load a yardstick as one safetensors file, with its card as metadata."""

from pathlib import Path

import torch

from civae_core.errors import DataError, UsageError
from civae_core.files import atomic_file
from civae_core.model.stored import build_to_fit, load_weights, read_metadata, read_tensors, save_tensors
from civae_core.yardstick.instrument import Networks, Yardstick, YardstickCard

FORMAT = 1
_KEY, _FORMAT_KEY = "civae_yardstick", "civae_yardstick_format"


def save_yardstick(yardstick: Yardstick, path: Path) -> None:
    """Write a yardstick; the file is complete or absent.

    Raises:
        CivaeError: the folder cannot be written, or the disk is full.
    """
    metadata = {_KEY: yardstick.card.to_json(), _FORMAT_KEY: str(FORMAT)}
    with atomic_file(path) as temporary:
        save_tensors(temporary, yardstick.networks.state_dict(), metadata)


def load_yardstick(path: Path, device: torch.device | str = "cpu") -> Yardstick:
    """Load a yardstick.

    Raises:
        UsageError: there is no such file.
        DataError: the file is truncated, not a scorer, of a newer format, or does not fit its own card.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such scorer file", hint="train one with `civae train-scorer`")
    card = read_yardstick_card(path)
    networks = build_to_fit(lambda: Networks(card.size, card.channels, len(card.attributes)), path)
    load_weights(networks, read_tensors(path), path)
    return Yardstick(networks.to(device).eval().requires_grad_(False), card, path)


def holds_yardstick(path: Path) -> bool:
    """Whether a file holds a scorer, by its metadata alone; False if it is not a readable safetensors file."""
    try:
        return _KEY in read_metadata(path)
    except DataError:
        return False


def read_yardstick_card(path: Path) -> YardstickCard:
    """The card of a scorer file, read without the weights.

    Raises:
        DataError: the file is truncated, not a scorer, damaged or of a newer format.
    """
    metadata = read_metadata(path)
    if _KEY not in metadata:
        raise DataError(
            f"{path}: a safetensors file, but not a scorer", hint="train one with `civae train-scorer`"
        )
    try:
        newer = int(metadata[_FORMAT_KEY]) > FORMAT
        card = None if newer else YardstickCard.from_json(metadata[_KEY])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: its metadata is damaged ({error})", hint="train it again") from error
    if card is None:
        raise DataError(
            f"{path}: written in format {metadata[_FORMAT_KEY]}, this version reads up to {FORMAT}",
            hint="update civae",
        )
    return card
