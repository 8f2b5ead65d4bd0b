"""The output folder: whose it is, whether it may be written to, and how it is emptied."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from civae_core import __version__
from civae_core.data.manifest import FORMAT, MANIFEST, MOST_BYTES, PARTIAL, Manifest, read_manifest
from civae_core.data.sources.base import Source
from civae_core.errors import DataError, UsageError
from civae_core.files import TEMPORARY_SUFFIX, describe_os_error, make_folder, write_json
from civae_core.locks import LOCK_NAME
from civae_core.reading import read_at_most, read_json

_OURS = re.compile(r"dataset\.yml|attributes\.safetensors|images-\d{5}\.safetensors|report\.(html|json)")
_TEMPORARY = re.compile(r"\.(dataset\.yml|(attributes|images-\d{5})\.safetensors|report\.\w+)\..*\.tmp")


class OccupiedError(UsageError):
    """The folder to be prepared holds something else: `why`, and what may be `deletable` to make room."""

    def __init__(self, out: Path, why: str, *, hint: str, deletable: str | None = None) -> None:
        super().__init__(f"--out {out} {why}", hint=hint)
        self.out, self.why, self.deletable = out, why, deletable


@contextmanager
def named_by_command() -> Iterator[None]:
    """For commands that choose the folder themselves, within their own --out, and have no --overwrite.

    Raises:
        UsageError: an OccupiedError in their terms.
    """
    try:
        yield
    except OccupiedError as error:
        way_out = "name another --out" + (f", or delete {error.deletable}" if error.deletable else "")
        raise UsageError(f"{error.out} {error.why}", hint=way_out) from error


def preparation_of(source: Source) -> str:
    """A fingerprint of everything that decides the data files' content, as far as it is known beforehand."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "source": source.identity,
        "preprocessing": source.preprocessing.to_dict(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def finished(out: Path, preparation: str, *, overwrite: bool) -> Manifest | None:
    """The manifest if `out` already holds exactly this preparation, finished, and is to keep it; writes nothing.

    Raises:
        UsageError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise OccupiedError(out, "is a file", hint="name a new folder")
    if out.is_dir() and _has_content(out):
        plan = out / PARTIAL / "plan.json"
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
    """Makes `out` ready for this preparation: empty, or holding it half done. For whoever holds the folder's lock.

    Raises:
        UsageError: `--overwrite` would delete what prepare-data did not write.
        CivaeError: it cannot be written.
    """
    if overwrite:
        _require_our_manifest(out)
    make_folder(out / PARTIAL)
    if overwrite:
        # A plan for nothing: killed while it is emptied, the folder is still known as ours, and what is left in it
        # not taken for part of the new preparation.
        write_json(out / PARTIAL / "plan.json", {"preparation": None, "civae": __version__})
        _remove_ours(out)
    _remove_temporary(out)
    write_json(out / PARTIAL / "plan.json", {"preparation": preparation, "civae": __version__})


def is_tidy(out: Path) -> bool:
    """Whether nothing is left in a finished folder of the process that prepared it."""
    return not (out / PARTIAL).exists() and not (out / LOCK_NAME).exists()


def release(out: Path) -> None:
    """Removes the working sub-folder of a finished preparation; the plan, by which it is known as ours, goes last.

    For whoever holds the folder's lock.

    Raises:
        CivaeError: it cannot be removed.
    """
    partial, plan = out / PARTIAL, out / PARTIAL / "plan.json"
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
    """Whether there is more than what a process leaves that was killed before it had written a plan."""
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
            text = read_at_most(out / MANIFEST, MOST_BYTES)
        except OSError as error:
            raise UsageError(
                f"--overwrite: cannot read {out / MANIFEST}: {error.strerror}", hint="name a new folder"
            ) from error
        if b"civae_format:" not in text:
            raise UsageError(
                f"--overwrite: {out / MANIFEST} was not written by prepare-data", hint="name a new folder"
            )


def _remove_ours(out: Path) -> None:
    """Deletes what prepare-data writes but the plan; the manifest goes first, so no half is taken for whole."""
    try:
        (out / MANIFEST).unlink(missing_ok=True)
        for path in out.iterdir():
            if path.is_file() and _OURS.fullmatch(path.name):
                path.unlink()
        for path in (out / PARTIAL).iterdir():
            if path.name != "plan.json":
                path.unlink()
    except OSError as error:
        raise describe_os_error(error, out) from error


def _remove_temporary(out: Path) -> None:
    """Deletes files that a killed run was in the middle of writing."""
    for path in out.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for path in (out / PARTIAL).glob(".*.tmp"):
        path.unlink(missing_ok=True)
