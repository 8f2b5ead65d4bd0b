"""Bytes of image files, from a folder or from inside a zip archive."""

import functools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from civae_core.errors import DataError


@dataclass(frozen=True)
class FolderFiles:
    """Files of a folder."""

    folder: Path

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError as error:
            raise DataError("the file is missing") from error
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class ZipFiles:
    """Members of a zip archive below the folder `prefix` ("" or ending in a slash)."""

    archive: Path
    prefix: str

    def read(self, name: str) -> bytes:
        try:
            return open_archive(self.archive).read(self.prefix + name)
        except KeyError as error:
            raise DataError("the file is missing from the archive") from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            # RuntimeError: an encrypted member. NotImplementedError: a compression method Python lacks.
            raise DataError(f"cannot be read from the archive: {error}") from error


@functools.lru_cache(maxsize=4)
def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive, opened once in each process: CelebA's directory of 200,000 members takes a second to read.

    Raises:
        DataError: it cannot be opened or is no zip file.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"cannot open {path}: {error}", hint="copy or download the archive again; it may be incomplete"
        ) from error
