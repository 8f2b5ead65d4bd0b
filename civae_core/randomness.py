"""Counter-based randomness: every draw has a name and a position, so a resumed run needs no saved generator."""

import hashlib

import torch


def seed_for(seed: int, stream: str, position: int = 0) -> int:
    """A 63-bit seed for one draw, a pure function of run seed, name of the stream and position in it."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(
    seed: int, stream: str, position: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator seeded by `seed_for`."""
    return torch.Generator(device=device).manual_seed(seed_for(seed, stream, position))
