"""Yardsticks that are trained once for each data set and question, and kept in the user's cache."""

import json
import logging
import os
from hashlib import sha256
from pathlib import Path

import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.errors import CivaeError
from civae_core.yardstick.fit import IMAGES, names_by_role, train_yardstick
from civae_core.yardstick.instrument import Yardstick
from civae_core.yardstick.stored import FORMAT, load_yardstick, save_yardstick

log = logging.getLogger(__name__)


def yardstick_for(
    data: PreparedData, roles: AttributeRoles, device: torch.device, *, images: int = IMAGES, seed: int = 0
) -> Yardstick:
    """The yardstick of this data and question: from the cache, or trained now and put there.

    A cache that cannot be read or written costs a warning, never the yardstick.
    """
    path = cached_path(data, roles, images=images, seed=seed)
    if path.is_file():
        try:
            found = load_yardstick(path, device)
            log.info("scorer of %s: %s", data.name, path)
            return found
        except CivaeError as error:
            log.warning("%s; training it again", error.message)
    log.info("training an independent scorer on %s, once for this data and question", data.name)
    trained = train_yardstick(data, roles, images=images, seed=seed, device=device)
    try:
        save_yardstick(trained, path)
    except CivaeError as error:
        log.warning("%s; the scorer is not kept", error.message)
        return trained
    return Yardstick(trained.networks, trained.card, path)


def cached_path(data: PreparedData, roles: AttributeRoles, *, images: int, seed: int) -> Path:
    """Where the yardstick of some data, question and settings is kept.

    Under $CIVAE_CACHE, else $XDG_CACHE_HOME/civae, else ~/.cache/civae.
    """
    key = {
        "format": FORMAT,
        "data": data.fingerprint,
        "roles": names_by_role(roles),
        "images": images,
        "seed": seed,
    }
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "scorers" / f"{digest}.safetensors"


def cache_folder() -> Path:
    """The user's folder for what can be made again."""
    if named := os.environ.get("CIVAE_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "civae"
