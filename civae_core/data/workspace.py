"""The output folder: which preparation it belongs to, whether it may be written to, and how it is emptied."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from civae_core import __version__
from civae_core.data.manifest import FORMAT, Manifest, read_manifest
from civae_core.data.sources.base import Source
from civae_core.errors import DataError, UsageError
from civae_core.file_names import MANIFEST, MOST_MANIFEST_BYTES, PARTIAL
from civae_core.files import TEMPORARY_SUFFIX, describe_os_error, make_folder, write_json
from civae_core.locks import LOCK_NAME
from civae_core.reading import read_at_most, read_json

PLAN = "plan.json"
"""File of `PARTIAL` that says which preparation the folder is for."""
_OURS = re.compile(r"dataset\.yml|attributes\.safetensors|images-\d{5}\.safetensors|report\.(html|json)")
_TEMPORARY = re.compile(r"\.(dataset\.yml|(attributes|images-\d{5})\.safetensors|report\.\w+)\..*\.tmp")


class OccupiedError(UsageError):
    """The output folder holds something else; `why` says what, `deletable` what could be deleted to make room."""

    def __init__(self, out: Path, why: str, *, hint: str, deletable: str | None = None) -> None:
        super().__init__(f"--out {out} {why}", hint=hint)
        self.out, self.why, self.deletable = out, why, deletable


@contextmanager
def named_by_command() -> Iterator[None]:
    """Reword errors for commands that choose the folder themselves, within their own --out, without --overwrite.

    Raises:
        UsageError: in place of an OccupiedError, with a hint that suits such a command.
    """
    try:
        yield
    except OccupiedError as error:
        way_out = "name another --out" + (f", or delete {error.deletable}" if error.deletable else "")
        raise UsageError(f"{error.out} {error.why}", hint=way_out) from error


def preparation_of(source: Source) -> str:
    """Fingerprint of everything that determines the content of the data files and is known beforehand."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "source": source.identity,
        "preprocessing": source.preprocessing.to_dict(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def finished(out: Path, preparation: str, *, overwrite: bool) -> Manifest | None:
    """The manifest if `out` holds exactly this preparation, finished and not to be overwritten; else None.

    Nothing is written.

    Raises:
        UsageError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise OccupiedError(out, "is a file", hint="name a new folder")
    if out.is_dir() and _has_content(out):
        plan = out / PARTIAL / PLAN
        is_whole = (out / MANIFEST).exists()
        if not is_whole and not plan.exists():
            raise OccupiedError(
                out, "is not empty and was not written by prepare-data", hint="name a new or empty folder"
            )
        if overwrite:
            return None
        if is_whole:
            return _require_same(out, preparation)
        if _planned(plan) != preparation:
            raise OccupiedError(
                out,
                "holds another, unfinished preparation",
                hint="run its command again to finish it, choose another folder, or start over with --overwrite",
                deletable=str(out),
            )
    return None


def claim(out: Path, preparation: str, *, overwrite: bool) -> None:
    """Make `out` ready for this preparation: empty, or with the preparation half done.

    The caller must hold the folder's lock.

    Raises:
        UsageError: `--overwrite` would delete what prepare-data did not write.
        CivaeError: the folder cannot be written.
    """
    if overwrite:
        _require_our_manifest(out)
    make_folder(out / PARTIAL)
    if overwrite:
        # A plan for nothing: if the process is killed while it empties the folder, the folder is still recognised as
        # ours, and what is left in it is not taken for part of the new preparation.
        write_json(out / PARTIAL / PLAN, {"preparation": None, "civae": __version__})
        _remove_ours(out)
    _remove_temporary(out)
    write_json(out / PARTIAL / PLAN, {"preparation": preparation, "civae": __version__})


def is_tidy(out: Path) -> bool:
    """Whether a finished folder holds no leftovers (working files, lock) of the process that prepared it."""
    return not (out / PARTIAL).exists() and not (out / LOCK_NAME).exists()


def release(out: Path) -> None:
    """Remove the working sub-folder of a finished preparation; the plan, which marks it as ours, goes last.

    The caller must hold the folder's lock.

    Raises:
        CivaeError: the sub-folder cannot be removed.
    """
    partial, plan = out / PARTIAL, out / PARTIAL / PLAN
    try:
        if plan.exists():
            for path in partial.iterdir():
                if path != plan:
                    path.unlink()
            plan.unlink()
        if partial.is_dir() and not any(partial.iterdir()):
            partial.rmdir()
    except OSError as error:
        raise describe_os_error(error, partial) from error


def _has_content(out: Path) -> bool:
    """Whether the folder holds more than what a process leaves if it is killed before it has written a plan."""
    partial = out / PARTIAL
    begun = partial.is_dir() and all(path.name.endswith(TEMPORARY_SUFFIX) for path in partial.iterdir())
    return any(
        not path.name.startswith(LOCK_NAME) and not (begun and path == partial) for path in out.iterdir()
    )


def _require_same(out: Path, preparation: str) -> Manifest:
    try:
        manifest = read_manifest(out)
    except DataError as error:
        raise OccupiedError(
            out,
            f"is not empty: {error.message}",
            hint="name a new folder, or replace this one with --overwrite",
            deletable=str(out),
        ) from error
    if manifest.preparation != preparation:
        raise OccupiedError(
            out,
            f"already holds other prepared data ({manifest.name}, {manifest.images:,} images)",
            hint="choose another folder, or replace it with --overwrite",
            deletable=f"{out} and what was trained on it",
        )
    return manifest


def _planned(plan: Path) -> str | None:
    try:
        named: str | None = read_json(plan)["preparation"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        out = plan.parents[1]
        raise OccupiedError(
            out,
            f"has a damaged {plan.name} ({error})",
            hint="start over with --overwrite",
            deletable=str(out),
        ) from error
    return named


def _require_our_manifest(out: Path) -> None:
    if (out / MANIFEST).exists():
        try:
            text = read_at_most(out / MANIFEST, MOST_MANIFEST_BYTES)
        except OSError as error:
            raise UsageError(
                f"--overwrite: cannot read {out / MANIFEST}: {error.strerror}", hint="name a new folder"
            ) from error
        if b"civae_format:" not in text:
            raise UsageError(
                f"--overwrite: {out / MANIFEST} was not written by prepare-data", hint="name a new folder"
            )


def _remove_ours(out: Path) -> None:
    """Delete what prepare-data writes, except the plan; the manifest goes first, so the rest never looks complete."""
    try:
        (out / MANIFEST).unlink(missing_ok=True)
        for path in out.iterdir():
            if path.is_file() and _OURS.fullmatch(path.name):
                path.unlink()
        for path in (out / PARTIAL).iterdir():
            if path.name != PLAN:
                path.unlink()
    except OSError as error:
        raise describe_os_error(error, out) from error


def _remove_temporary(out: Path) -> None:
    """Delete files that a killed run was in the middle of writing."""
    for path in out.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for path in (out / PARTIAL).glob(".*.tmp"):
        path.unlink(missing_ok=True)
