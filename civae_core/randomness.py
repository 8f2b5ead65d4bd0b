"""Counter-based randomness: every draw has a name and a position, so resuming a run needs no saved generator."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, stream: str, position: int = 0) -> int:
    """A 63-bit seed for one draw: a pure function of the run's seed, the stream's name and the position in it."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(seed: int, stream: str, position: int = 0) -> "torch.Generator":
    """A fresh CPU generator seeded by `seed_for`."""
    import torch

    return torch.Generator().manual_seed(seed_for(seed, stream, position))


def numpy_generator_for(seed: int, stream: str, position: int = 0) -> np.random.Generator:
    """A fresh generator seeded by `seed_for`, for draws that must not depend on torch."""
    return np.random.Generator(np.random.Philox(seed_for(seed, stream, position)))
