"""A folder of images with a table."""

from pathlib import Path

from civae_core.data.images import Preprocessing
from civae_core.data.sources.base import FileReader, Source
from civae_core.data.sources.files import FolderFiles
from civae_core.data.splits import hashed_splits
from civae_core.data.tables import SPLIT_COLUMN, find_table, read_table
from civae_core.errors import DataError, UsageError
from civae_core.files import sha256_of


def folder_source(
    folder: Path,
    *,
    table: Path | None,
    size: int,
    channels: int,
    crop: int | None,
    seed: int | None,
    follow_links: bool = False,
) -> Source:
    """An image folder with metadata.csv, .tsv or .jsonl in it, or with the given table.

    Without a `split` column, the images are split 80/10/10 by a hash of their names and `seed` (default 0).

    Raises:
        DataError: the folder or the table is missing, or the table is invalid.
        UsageError: a seed is given for a table that has its own splits.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", hint="SOURCE is a folder or synthetic:faces")
    path = table or find_table(folder)
    if path.exists() and not path.is_file():
        raise DataError(
            f"{path} is not a regular file", hint="copy the table to a file first; it is read more than once"
        )
    read = read_table(path)
    if read.splits_N is not None and seed is not None:
        raise UsageError(
            f"--seed {seed} has no effect: {path.name} has a column {SPLIT_COLUMN}",
            hint=f"omit --seed, or rename that column to have the images split by --seed {seed}",
        )
    splits_N = read.splits_N if read.splits_N is not None else hashed_splits(read.file_names, seed or 0)
    preprocessing = Preprocessing(size=size, channels=channels, crop=crop)
    return Source(
        name=folder.resolve().name,
        identity={
            "kind": "folder",
            "path": str(folder.resolve()),
            "table": path.name,
            "table_sha256": sha256_of(path),
            "split_seed": None if read.splits_N is not None else seed or 0,
            **({"follow_links": True} if follow_links else {}),
        },
        table=read,
        splits_N=splits_N,
        preprocessing=preprocessing,
        reader=FileReader(FolderFiles(folder, follow_links), read.file_names, preprocessing),
    )
