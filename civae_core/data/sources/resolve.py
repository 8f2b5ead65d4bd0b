"""Opening of the source that the user named, refusing options that would have no effect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from civae_core.attributes import nearest
from civae_core.data.sources.base import Source
from civae_core.data.sources.celeba import celeba_source, is_celeba
from civae_core.data.sources.faces import (
    BUILT_IN,
    DEFAULT_COUNT,
    DEFAULT_OVERLAP,
    DEFAULT_TRUTHS,
    faces_source,
)
from civae_core.data.sources.folder import folder_source
from civae_core.data.sources.truths import parse_truths
from civae_core.errors import DataError, UsageError, flag_as_typed
from civae_core.synthetic import attributes_of, roots_of

SYNTHETIC = "synthetic:faces"
SMALLEST, LARGEST = 8, 1024
SMALLEST_FACE, LARGEST_FACE = 32, 256


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Command-line options of a source; None means that an option was not given."""

    size: int = 64
    channels: int = 3
    crop: int | None = None
    table: Path | None = None
    seed: int | None = None
    count: int | None = None
    overlap: float | None = None
    truths: Sequence[str] = ()
    follow_links: bool = False


def open_source(named: str, options: SourceOptions) -> Source:
    """Open a CelebA tree or zip, an image folder with a table, or the built-in faces by name.

    Raises:
        UsageError: an option is out of range, or does not apply to this kind of source.
        DataError: the source is missing or damaged.
    """
    if not SMALLEST <= options.size <= LARGEST:
        raise UsageError(
            f"--size {options.size} is not between {SMALLEST} and {LARGEST}", hint="the default is 64 pixels"
        )
    if options.crop is not None and options.crop < 1:
        raise UsageError(
            f"--crop {options.crop} is not a number of pixels",
            hint="give the side of the centred square to keep, 1 or more; the default is the largest that fits, "
            "for CelebA the usual 150",
        )
    if named.startswith("synthetic:"):
        return _open_faces(named, options)
    _refuse(
        f"it is only for {' and '.join(BUILT_IN)}",
        {"--n": options.count, "--overlap": options.overlap, "--truth": options.truths or None},
    )
    path = Path(named)
    if not path.exists():
        near = nearest(named, BUILT_IN)
        raise DataError(
            f"{named}: no such folder" + (f" (did you mean {near}?)" if near else ""),
            hint=f"SOURCE is a CelebA folder or zip, a folder of images with a table, or {' or '.join(BUILT_IN)}",
        )
    if options.table is None and is_celeba(path):
        _refuse("CelebA has its own partition", {"--seed": options.seed})
        return celeba_source(
            path,
            size=options.size,
            channels=options.channels,
            crop=options.crop,
            follow_links=options.follow_links,
        )
    return folder_source(
        path,
        table=options.table,
        size=options.size,
        channels=options.channels,
        crop=options.crop,
        seed=options.seed,
        follow_links=options.follow_links,
    )


def _open_faces(named: str, options: SourceOptions) -> Source:
    if named not in BUILT_IN:
        near = nearest(named, BUILT_IN)
        raise UsageError(
            f"{named}: no such source" + (f" (did you mean {near}?)" if near else ""),
            hint=f"the built-in ones are {' and '.join(BUILT_IN)}",
        )
    if not SMALLEST_FACE <= options.size <= LARGEST_FACE:
        raise UsageError(
            f"--size {options.size} is not between {SMALLEST_FACE} and {LARGEST_FACE}, the range of {named}",
            hint="the default is 64 pixels",
        )
    _refuse(
        "synthetic faces are drawn at --size, not read from files",
        {"--crop": options.crop, "--table": options.table, "--follow-links": options.follow_links or None},
    )
    roots = roots_of(BUILT_IN[named])
    consequences = {a.name for a in attributes_of(BUILT_IN[named])} - {a.name for a in roots}
    return faces_source(
        count=DEFAULT_COUNT if options.count is None else options.count,
        seed=options.seed or 0,
        overlap=DEFAULT_OVERLAP if options.overlap is None else options.overlap,
        truths=parse_truths(options.truths or DEFAULT_TRUTHS[named], roots, consequences),
        size=options.size,
        channels=options.channels,
        name=named,
    )


def _refuse(why: str, given: dict[str, object]) -> None:
    for flag, value in given.items():
        if value is not None:
            typed = flag_as_typed(flag, value)
            raise UsageError(f"{typed} has no effect here: {why}", hint=f"omit {flag}")
