"""Cache of yardsticks: each is trained once per data set and question, and kept in the user's cache folder."""

import json
import logging
import os
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import torch

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.errors import CivaeError
from civae_core.yardstick.fit import IMAGES, RECIPE, names_by_role, train_yardstick
from civae_core.yardstick.instrument import Yardstick
from civae_core.yardstick.networks import LATENT, LATENT_WIDTHS, SCORER_WIDTHS, WORKING_SIZE
from civae_core.yardstick.stored import FORMAT, load_yardstick, save_yardstick

log = logging.getLogger(__name__)


def yardstick_for(
    data: PreparedData,
    roles: AttributeRoles,
    device: torch.device,
    *,
    images: int = IMAGES,
    seed: int = 0,
    keep: Path | None = None,
) -> Yardstick:
    """Load the yardstick of this data set and question from the cache, or train it now and cache it.

    A cache that cannot be read or written leads to a warning; the yardstick is returned all the same.

    Args:
        keep: a folder that keeps the yardstick, too. What it keeps is taken before what the cache has: on a GPU,
            another training gives other weights.

    Raises:
        CivaeError: `keep` cannot be written.
    """
    if keep is not None:
        path = keep / _file_name(data, roles, images=images, seed=seed)
        found = _kept(path, data, device)
        if found is None:
            found = yardstick_for(data, roles, device, images=images, seed=seed)
            save_yardstick(found, path)
        return replace(found, path=path)
    try:
        found = _loaded(cached_path(data, roles, images=images, seed=seed), data, device)
        if found is not None:
            return found
    except (CivaeError, OSError) as error:
        log.warning("%s; training a scorer again", error)
    log.info("training an independent scorer on %s, once for this data", data.name)
    trained = train_yardstick(data, roles, images=images, seed=seed, device=device)
    try:
        path = cached_path(data, roles, images=images, seed=seed)
        save_yardstick(trained, path)
    except CivaeError as error:
        log.warning("%s; the scorer is not kept", error)
        return trained
    return replace(trained, path=path)


def _kept(path: Path, data: PreparedData, device: torch.device) -> Yardstick | None:
    """The yardstick in a file; None if there is none or, with a warning, if it cannot be read."""
    try:
        return _loaded(path, data, device)
    except (CivaeError, OSError) as error:
        log.warning("%s; another scorer takes its place", error)
        return None


def _loaded(path: Path, data: PreparedData, device: torch.device) -> Yardstick | None:
    if not path.is_file():
        return None
    found = load_yardstick(path, device)
    log.info("scorer of %s: %s", data.name, path)
    return found


def cached_path(data: PreparedData, roles: AttributeRoles, *, images: int, seed: int) -> Path:
    """The cache path of the yardstick for a data set, question and settings.

    Raises:
        CivaeError: there is no cache folder.
    """
    return cache_folder() / "scorers" / _file_name(data, roles, images=images, seed=seed)


def _file_name(data: PreparedData, roles: AttributeRoles, *, images: int, seed: int) -> str:
    """A name that differs wherever the yardstick would."""
    key = {
        "format": FORMAT,
        "data": data.fingerprint,
        "roles": names_by_role(roles),
        "recipe": asdict(RECIPE),
        "networks": [WORKING_SIZE, SCORER_WIDTHS, LATENT_WIDTHS, LATENT],
        "images": images,
        "seed": seed,
    }
    return f"{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}.safetensors"


def cache_folder() -> Path:
    """The folder for files that can be recreated: $CIVAE_CACHE, else $XDG_CACHE_HOME/civae, else ~/.cache/civae.

    Raises:
        CivaeError: neither variable is set, and the user has no home folder.
    """
    if named := os.environ.get("CIVAE_CACHE"):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "civae"
    try:
        return Path.home() / ".cache" / "civae"
    except RuntimeError as error:
        raise CivaeError("there is no home folder to keep a cache in", hint="set CIVAE_CACHE") from error
