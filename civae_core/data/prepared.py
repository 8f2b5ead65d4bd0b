"""Reader of a prepared folder: the attribute table is held in memory, the images are memory-mapped."""

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from civae_core.assignments import Intervention
from civae_core.attributes import LARGEST, Attribute, AttributeRoles, require_name
from civae_core.data.left_out import read_left_out, refuse_left_out
from civae_core.data.manifest import ATTRIBUTES_FILE, Manifest, prepare_anew, read_manifest
from civae_core.data.shards import Shards
from civae_core.data.splits import SPLITS, Split
from civae_core.data.tensorfile import TensorFile
from civae_core.errors import DataError
from civae_core.files import sha256_of


class Truth:
    """True counterfactuals provided by the source: the same subjects under an intervention.

    `rows` int64 [M] are the rows of the factual images; `table_MA` float32 [M,A] holds the attributes under do().
    """

    def __init__(
        self,
        name: str,
        do: Intervention,
        file: TensorFile,
        number: int,
        shape: Any,
        attributes: Sequence[Attribute],
    ) -> None:
        self.name = name
        self.do = do
        prefix = f"truth.{number}"
        rows_M = file.array(f"{prefix}.rows", np.int64, (None,))
        count = len(file.array("attributes", np.float32, (None, None)))
        if len(rows_M) and not 0 <= rows_M.min() <= rows_M.max() < count:
            raise DataError(
                f"{file.path}: {prefix}.rows are not all within the {count:,} images",
                hint=prepare_anew(file.path.parent),
            )
        self.rows = torch.from_numpy(rows_M.copy())
        self.table_MA = _checked_table(file, f"{prefix}.attributes", len(rows_M), attributes)
        self._images = file.array(f"{prefix}.images", np.uint8, (len(rows_M), *shape))

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: torch.Tensor) -> torch.Tensor:
        """True counterfactual images uint8 [m,C,S,S]; `indices` are positions in `rows`, not row numbers.

        Raises:
            IndexError: an index outside 0 … M−1.
        """
        wanted = _checked(indices, len(self))
        return torch.from_numpy(self._images[wanted])


class PreparedData:
    """Images uint8 [N,C,S,S] with attributes float32 [N,A], as written by `civae prepare-data`.

    Opening reads the table and maps the images. No shard is ever loaded whole, and at most a few dozen are mapped at
    a time. Pickling stores only the path.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Open a folder whose manifest has already been read; `PreparedData.open` also reads the manifest."""
        self.path = path
        self.manifest = manifest
        self.name = manifest.name
        self.preprocessing: dict[str, Any] = dict(manifest.preprocessing)
        self.size: int = self.preprocessing["size"]
        self.channels: int = self.preprocessing["channels"]
        self.attributes = manifest.table
        shape = (self.channels, self.size, self.size)
        self._shards = Shards(partial(_open_listed, path, manifest), _listed(manifest), shape)
        file = _open_listed(path, manifest, ATTRIBUTES_FILE)
        count = manifest.images
        if len(self._shards) != count:
            raise DataError(
                f"{path}: the shards hold {len(self._shards):,} images, but dataset.yml says {count:,}",
                hint=prepare_anew(path),
            )
        self.table_NA = _checked_table(file, "attributes", count, self.attributes)
        self._splits = file.array("split", np.uint8, (count,))
        if self._splits.max() >= len(SPLITS):
            raise DataError(
                f"{file.path}: has a split {self._splits.max()}, but there are only {len(SPLITS)}",
                hint=prepare_anew(path),
            )
        self._name_bytes = file.array("file_names", np.uint8, (None,))
        self._name_ends = file.array("file_name_ends", np.int64, (count,))
        if self._name_ends.min() < 0 or (np.diff(self._name_ends) < 0).any():
            raise DataError(f"{file.path}: its file names overlap", hint=prepare_anew(path))
        self.truth = tuple(
            Truth(entry.name, dict(entry.do), file, number, shape, self.attributes)
            for number, entry in enumerate(manifest.truth)
        )

    @classmethod
    def open(cls, path: Path | str) -> "PreparedData":
        """Open a prepared folder.

        Raises:
            DataError: the folder is not a prepared one, is half-written or of an unknown version; or a file is
                missing, truncated, not written by civae, or of a shape other than dataset.yml states.
        """
        folder = Path(path)
        return cls(folder, read_manifest(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self).open, (self.path,))

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the file names and checksums listed in dataset.yml."""
        return self.manifest.fingerprint

    @cached_property
    def file_names(self) -> Sequence[str]:
        """File names of the images in their source, one per row.

        Raises:
            DataError: a name is not UTF-8.
        """
        text, starts = self._name_bytes.tobytes(), [0, *self._name_ends[:-1].tolist()]
        places = zip(starts, self._name_ends.tolist(), strict=True)
        try:
            return [text[start:end].decode() for start, end in places]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path / ATTRIBUTES_FILE}: a file name is not UTF-8", hint=prepare_anew(self.path)
            ) from error

    def require(self, names: Iterable[str], where: str) -> None:
        """Refuse names of columns that the table lacks.

        Args:
            names: columns that are asked for.
            where: the flag, key or folder with which the message begins.

        Raises:
            UsageError: there is no such column; the message gives the nearest one, or why it was left out.
        """
        known = [attribute.name for attribute in self.attributes]
        for name in names:
            if name not in known:
                refuse_left_out(name, read_left_out(self.path), where)
                require_name(name, known, where)

    def assign(
        self, treatment: Sequence[str], covariates: Sequence[str], descendants: Sequence[str] = ()
    ) -> AttributeRoles:
        """Roles of the table's attributes; those that are not named are held out.

        Raises:
            UsageError: the table lacks a column; the message gives the nearest one, or why it was left out.
        """
        roles = {"treatment": treatment, "covariates": covariates, "descendants": descendants}
        for key, names in roles.items():
            self.require(names, f"data.{key}")
        return AttributeRoles.assign(self.attributes, treatment, covariates, descendants)

    def column(self, name: str) -> torch.Tensor:
        """One attribute, float32 [N], NaN where the label is missing.

        Raises:
            UsageError: the table has no such column.
        """
        return self.columns([name])[:, 0]

    def columns(self, names: Sequence[str]) -> torch.Tensor:
        """Several attributes in the order asked for, float32 [N, len(names)], NaN where a label is missing.

        Raises:
            UsageError: the table has no such column.
        """
        self.require(names, str(self.path))
        known = [attribute.name for attribute in self.attributes]
        return self.table_NA[:, [known.index(name) for name in names]]

    def rows(self, split: Split) -> torch.Tensor:
        """Row numbers of a split in ascending order, int64."""
        return torch.from_numpy(np.flatnonzero(self._splits == SPLITS.index(split)))

    def images(self, rows: torch.Tensor) -> torch.Tensor:
        """Images of the given rows, uint8 [B,C,S,S], in the same order.

        Raises:
            IndexError: a row outside 0 … N−1.
        """
        return torch.from_numpy(self._shards.read(_checked(rows, len(self))))

    def verify(self) -> None:
        """Compare every data file with its checksum; this reads all the data.

        Raises:
            DataError: a file has changed; the message names the first.
        """
        for name, entry in self.manifest.files.items():
            if sha256_of(self.path / name) != entry.sha256:
                raise DataError(
                    f"{self.path / name} does not match its checksum", hint=prepare_anew(self.path)
                )


def _listed(manifest: Manifest) -> list[tuple[str, int]]:
    """Names of the shards with their numbers of images, in order."""
    return sorted((name, entry.images) for name, entry in manifest.files.items() if entry.images is not None)


def _open_listed(folder: Path, manifest: Manifest, name: str) -> TensorFile:
    entry = manifest.files.get(name)
    if entry is None:
        raise DataError(f"{folder}: dataset.yml does not list {name}", hint=prepare_anew(folder))
    file = TensorFile(folder / name)
    if file.size != entry.bytes:
        raise DataError(
            f"{folder / name} has {file.size:,} bytes, but dataset.yml says {entry.bytes:,}",
            hint=prepare_anew(folder),
        )
    return file


def _checked_table(file: TensorFile, name: str, count: int, attributes: Sequence[Attribute]) -> torch.Tensor:
    """Read an attribute table [count, A] and check that all values are valid; NaN where a label is missing.

    Raises:
        DataError: a value is too large, or a binary attribute is neither 0 nor 1.
    """
    table_NA = file.array(name, np.float32, (count, len(attributes)))
    for attribute, values_N in zip(attributes, table_NA.T, strict=True):
        if attribute.kind == "binary":
            fits_N = np.isnan(values_N) | (values_N == 0) | (values_N == 1)
        else:
            fits_N = np.isnan(values_N) | (np.abs(values_N) <= LARGEST)
        if not fits_N.all():
            row = int(np.flatnonzero(~fits_N)[0])
            raise DataError(
                f"{file.path}: {attribute.kind} attribute {attribute.name} of image {row} is {values_N[row]:g}",
                hint=prepare_anew(file.path.parent),
            )
    return torch.from_numpy(table_NA.copy())


def _checked(indices: torch.Tensor, count: int) -> np.ndarray:
    wanted = indices.numpy()
    if wanted.size and (wanted.min() < 0 or wanted.max() >= count):
        raise IndexError(f"rows {wanted.min()} to {wanted.max()} are not all within 0 to {count - 1}")
    return wanted
