"""CelebA in its usual forms: official or Kaggle lists, with a folder of JPEGs or a zip that stays packed.

Only the aligned images, the attributes and the partition are needed; the lists of identities, boxes and landmarks
are not, and no checksum is compared.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from civae_core.celeba import WIDTH
from civae_core.data.images import Preprocessing
from civae_core.data.sources.base import FileReader, Files, Source
from civae_core.data.sources.celeba_lists import read_attributes, read_partition
from civae_core.data.sources.files import (
    ARCHIVE_ERRORS,
    MOST_LIST_BYTES,
    FolderFiles,
    ZipFiles,
    open_archive,
    open_member,
)
from civae_core.data.tables import numbered_lines
from civae_core.errors import DataError
from civae_core.files import is_macos_leftover
from civae_core.os_errors import hint_on_reading

CROP = 150
"""Default side of the centred square: the face without most of the background."""

_ATTRIBUTES = "list_attr_celeba"
_PARTITION = "list_eval_partition"
_IMAGES = "img_align_celeba"
_PROBES = 100  # file names that are looked for to locate the images; the first ones may be missing


@dataclass(frozen=True)
class _List:
    """One of the lists, in a folder or inside an archive."""

    path: Path
    archive: Path | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        if self.archive is None:
            with self.path.open("rb") as file:
                yield file
        else:
            name = self.path.relative_to(self.archive).as_posix()
            with open_member(self.archive, name, MOST_LIST_BYTES) as file:
                yield file


def is_celeba(root: Path) -> bool:
    """Whether a folder holds, or was meant to hold, CelebA; any zip counts as CelebA."""
    if root.is_file():
        return root.suffix.lower() == ".zip"
    return bool(_find_list(root, _ATTRIBUTES)) or any(_image_folders(root)) or any(_archives(root, _IMAGES))


def celeba_source(
    root: Path, *, size: int, channels: int, crop: int | None, follow_links: bool = False
) -> Source:
    """CelebA below `root`: a folder, a zip of the images with the lists beside it, or a zip of everything.

    Raises:
        DataError: the attributes, the partition or the images are missing, or a list is damaged.
    """
    home = root
    if root.is_file() and not _find_list(root, _ATTRIBUTES):
        # A zip of images only: the lists are beside it, or in Anno and Eval beside Img in the official tree.
        home = root.parent.parent if root.parent.name == "Img" else root.parent
    attributes = _find_list(home, _ATTRIBUTES)
    partition = _find_list(home, _PARTITION)
    if attributes is None or partition is None:
        missing = _ATTRIBUTES if attributes is None else _PARTITION
        raise DataError(
            f"{root}: found CelebA, but no {missing}.txt or .csv",
            hint="provide the aligned images, the list of attributes and the partition",
        )
    with _reading(attributes) as lines:
        table = read_attributes(lines, attributes.path)
    with _reading(partition) as lines:
        splits_N = read_partition(lines, partition.path, table.file_names)
    files = _find_images(root, table.file_names[:_PROBES], follow_links)
    preprocessing = Preprocessing(size=size, channels=channels, crop=crop or CROP, crop_of=WIDTH)
    digest = hashlib.sha256(
        table.values_NA.tobytes() + splits_N.tobytes() + "\n".join(table.file_names).encode()
    )
    return Source(
        name="CelebA",
        identity={"kind": "celeba", "path": str(root.resolve()), "table_sha256": digest.hexdigest()}
        | ({"follow_links": True} if follow_links else {}),
        table=table,
        splits_N=splits_N,
        preprocessing=preprocessing,
        reader=FileReader(files, table.file_names, preprocessing),
    )


@contextlib.contextmanager
def _reading(item: _List) -> Iterator[Iterable[tuple[int, str]]]:
    try:
        with item.open() as file:
            yield numbered_lines(file, item.path)
    except (KeyError, *ARCHIVE_ERRORS) as error:
        raise DataError(
            f"cannot read {item.path}: {error}",
            hint=hint_on_reading(error, "copy or download it again; it may be incomplete"),
        ) from error


def _find_list(root: Path, stem: str) -> _List | None:
    for suffix in (".txt", ".csv"):
        if root.is_dir():
            for pattern in (stem, f"*/{stem}", f"*/*/{stem}"):
                for path in sorted(root.glob(pattern + suffix)):
                    return _List(path)
        for archive in [root] if root.is_file() else _archives(root, ""):
            for member in open_archive(archive).namelist():
                if Path(member).name == stem + suffix:
                    return _List(archive / member, archive)
    return None


def _find_images(root: Path, probes: list[str], follow_links: bool) -> Files:
    folders = [*_image_folders(root), root] if root.is_dir() else []
    for folder in folders:
        if any((folder / name).is_file() for name in probes):
            return FolderFiles(folder, follow_links)
    archives = [root] if root.is_file() else [*_archives(root, _IMAGES), *_archives(root, "")]
    wanted = set(probes)
    for archive in archives:
        for member in open_archive(archive).namelist():
            prefix, slash, name = member.rpartition("/")
            if name in wanted and not prefix.startswith("__MACOSX"):
                return ZipFiles(archive, prefix + slash)
    raise DataError(
        f"{root}: found CelebA's lists, but no images such as {probes[0]}",
        hint=f"put the folder {_IMAGES} or {_IMAGES}.zip beside the lists",
    )


def _image_folders(root: Path) -> Iterator[Path]:
    """Folders named img_align_celeba, at the depths where copies in circulation have them."""
    for pattern in (_IMAGES, f"*/{_IMAGES}", f"*/*/{_IMAGES}"):
        yield from sorted(path for path in root.glob(pattern) if path.is_dir())


def _archives(root: Path, stem: str) -> list[Path]:
    """Zips that may hold CelebA, judging by their names; others are not opened."""
    found = (
        path
        for pattern in ("*.zip", "*/*.zip")
        for path in root.glob(pattern)
        if path.stem.startswith(stem) and not is_macos_leftover(path)
    )
    return sorted(path for path in found if "celeba" in path.stem.lower() or path.stem.startswith("archive"))
