"""Read input pictures from files, folders, glob patterns, a list on standard input, or prepared data."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from civae_core.align.aligner import Aligner, Look, View
from civae_core.attributes import Attribute, beyond_training, require_same_kinds
from civae_core.data.images import Preprocessing, decode
from civae_core.data.tables import read_table
from civae_core.errors import DataError, UsageError
from civae_core.files import exists, is_macos_leftover
from civae_core.os_errors import SPELLING

if TYPE_CHECKING:
    from civae_core.data import PreparedData

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


@dataclass(frozen=True)
class Picture:
    """One picture at the model's size, with what is known about it."""

    name: str
    """A name by which the user can find it: a path, or `DATA#test[17]`."""
    stem: str
    """Base name of the files made from it."""
    pixels_CHW: np.ndarray
    """uint8 [C,S,S]."""
    known: Mapping[str, float] = field(default_factory=dict)
    """Factual attribute values from a table, in raw units."""
    file: Path | None = None
    """The photograph it was made from; None for a prepared image."""
    view: View | None = None
    """The face it shows; None for a centred square or a prepared image."""
    faceless: bool = False
    """Whether faces were searched for in the photograph and none was found."""

    @property
    def title(self) -> str:
        """Name in messages, with the number of the face if the photograph has several."""
        several = self.view is not None and self.view.of > 1
        return f"{self.name}, face {self.view.number}" if several and self.view else self.name


class Pictures:
    """The pictures named on a command line, read one at a time.

    Args:
        arguments: files, folders (their images, sorted), glob patterns, `-` for a list of paths on `stdin`, or
            selections of prepared data such as `DATA#test[0:100]`.
        preprocessing: the model's preprocessing of photographs.
        stdin: the lines that `-` stands for.
        table: a CSV, TSV or JSONL file with `file_name` and attribute columns, for photographs.
        attributes: the model's treatments and covariates. `table` must contain at least one of them; prepared data
            must have them as of the same kind. None accepts anything.
        aligner: crops faces instead of the centred square; a photograph with several may yield several pictures.

    Raises:
        UsageError: a path does not exist, a folder has no images, prepared images have another format than the
            model's, or the table says nothing about the pictures.
        DataError: the table or prepared data cannot be read or is damaged; the table has text where numbers belong;
            or prepared data has an attribute as of another kind than the model's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        preprocessing: Mapping[str, Any],
        *,
        stdin: Iterable[str] = (),
        table: Path | None = None,
        attributes: Sequence[Attribute] | None = None,
        aligner: Aligner | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.attributes = attributes
        self.aligner = aligner
        # Photographs are kept as strings: for a very large folder, Path objects would take several times the memory.
        self.entries: list[str | tuple[PreparedData, str, int, int]] = []
        self.labels = _labels_by_file(table, attributes) if table else {}
        for argument in arguments:
            self._add(argument, stdin)
        if not self.entries:
            raise UsageError("-: standard input names no picture", hint="give one path per line")
        if table and not any(self._row(Path(e)) is not None for e in self.entries if isinstance(e, str)):
            raise UsageError(
                f"--attrs {table}: names none of the pictures",
                hint="file_name must be a picture's path as given, its path relative to the table, or its bare name",
            )

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Picture | DataError]:
        """Yield each picture in turn; if one cannot be read, yield its error, so that the others can go on."""
        for entry in self.entries:
            if isinstance(entry, str):
                try:
                    yield from self._shown(Path(entry))
                except DataError as error:
                    yield error
            else:
                yield _prepared_picture(*entry)

    def _shown(self, file: Path) -> list[Picture]:
        """The pictures made from a photograph: its faces, or its centred square."""
        look = self.aligner.look(file) if self.aligner else Look([], faceless=False)
        if not look.views:
            pixels_CHW = decode(file, Preprocessing.from_dict(self.preprocessing))
            return [
                Picture(str(file), file.stem, pixels_CHW, self._known(file), file, faceless=look.faceless)
            ]
        return [
            Picture(
                str(file),
                f"{file.stem}-face{view.number}" if view.of > 1 else file.stem,
                view.pixels_CHW,
                self._known(file),
                file,
                view,
            )
            for view in look.views
        ]

    @property
    def has_photos(self) -> bool:
        """Whether any picture is a photograph rather than a prepared image."""
        return any(isinstance(entry, str) for entry in self.entries)

    def require_photos(self, flag: str) -> None:
        """Raise UsageError if any picture is a prepared image, whose photograph is not available."""
        for entry in self.entries:
            if not isinstance(entry, str):
                data, split, number, _ = entry
                raise UsageError(
                    f"{flag}: {data.path}#{split}[{number}] is prepared data, which has no photograph",
                    hint="name the photographs' own files instead",
                )

    def beyond_training(self, attributes: Sequence[Attribute], stated: Iterable[str] = ()) -> dict[str, str]:
        """Values of these photographs in the table that training never saw: one sentence per attribute.

        Args:
            stated: attributes that are stated otherwise, so that their values in the table do not count.
        """
        found: dict[str, list[str]] = {}
        if not self.labels:
            return {}
        files = dict.fromkeys(entry for entry in self.entries if isinstance(entry, str))
        for file in map(Path, files):
            for attribute in attributes:
                if attribute.name not in stated:
                    for text in beyond_training(self._known(file), [attribute]):
                        found.setdefault(attribute.name, []).append(f"{file}: {text}")
        return {
            name: texts[0] + (f", and {len(texts) - 1} more" if len(texts) > 1 else "")
            for name, texts in found.items()
        }

    def _known(self, file: Path) -> Mapping[str, float]:
        return self._row(file) or {}

    def _row(self, file: Path) -> Mapping[str, float] | None:
        """What the table says of a photograph, which may be nothing; None if no row names it."""
        return self.labels.get(str(file), self.labels.get(file.name))

    def _add(self, argument: str, stdin: Iterable[str]) -> None:
        if argument == "-":
            for line in stdin:
                if line.strip():
                    self._add(line.rstrip("\r\n"), ())
            return
        if "#" in argument and self._add_selection(argument):
            return
        path = Path(argument)
        if not exists(path):
            self._add_matches(argument)
        elif path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            found = [p for p in found if not is_macos_leftover(p)]
            if not found:
                raise UsageError(
                    f"{argument}: a folder without images", hint=f"looked for {', '.join(SUFFIXES)}"
                )
            self.entries.extend(map(str, found))
        else:
            self.entries.append(str(path))

    def _add_matches(self, pattern: str) -> None:
        """Add the files that a pattern matches."""
        if not glob.has_magic(pattern):
            raise UsageError(
                f"{pattern}: no such file, folder or pattern",
                hint=f"{SPELLING}; prepared images are DATA#test or DATA#test[17]",
            )
        matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UsageError(
                f"{pattern}: no file matches this pattern",
                hint="* matches any part of a name, ** any folders below; you can also name a folder",
            )
        self.entries.extend(map(str, files))

    def _add_selection(self, argument: str) -> bool:
        """Add prepared images, whose reader needs torch; return False if `argument` does not name any."""
        from civae_core.data import PreparedData
        from civae_core.data.selection import parse_selection

        selection = parse_selection(argument)
        if selection is None:
            return False
        data = PreparedData.open(selection.path)
        self._require_same_format(data, argument)
        require_same_kinds(self.attributes or (), data.attributes, argument)
        for number, row in enumerate(selection.rows(data).tolist(), start=selection.start):
            self.entries.append((data, selection.split, number, row))
        return True

    def _require_same_format(self, data: "PreparedData", argument: str) -> None:
        has = (data.channels, data.size)
        wants = (self.preprocessing["channels"], self.preprocessing["size"])
        if has != wants:
            grey = " --grey" if wants[0] == 1 else ""
            raise UsageError(
                f"{argument}: images are {has[0]}×{has[1]}×{has[1]}, "
                f"the model takes {wants[0]}×{wants[1]}×{wants[1]}",
                hint=f"name the photographs themselves, or prepare them with `--size {wants[1]}{grey}`",
            )


def _prepared_picture(data: "PreparedData", split: str, number: int, row: int) -> Picture:
    values = data.table_NA[row].tolist()
    known = {a.name: v for a, v in zip(data.attributes, values, strict=True) if v == v}
    import torch

    pixels_CHW = data.images(torch.tensor([row]))[0].numpy()
    return Picture(f"{data.path}#{split}[{number}]", f"{split}-{number:05d}", pixels_CHW, known)


def _labels_by_file(path: Path, attributes: Sequence[Attribute] | None) -> dict[str, dict[str, float]]:
    kinds = {a.name: a.kind for a in attributes or ()}
    table = read_table(path, kinds)
    if attributes is not None and not set(table.names) & set(kinds):
        raise UsageError(
            f"--attrs {path}: none of its columns ({', '.join(table.names)}) is an attribute of the model",
            hint=f"the model's attributes are {', '.join(kinds)}",
        )
    labels: dict[str, dict[str, float]] = {}
    for row, file_name in enumerate(table.file_names):
        values = table.values_NA[row].tolist()
        known = {name: value for name, value in zip(table.names, values, strict=True) if value == value}
        labels[file_name] = labels[str(path.parent / file_name)] = known
    return labels
