"""Prepared images as a command line names them: `DATA#test`, `DATA#test[17]`, `DATA#test[0:100]`."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from civae_core.data.prepared import PreparedData
from civae_core.data.splits import SPLITS, Split
from civae_core.errors import UsageError
from civae_core.file_names import MANIFEST

_FORM = re.compile(r"(?P<path>.+)#(?P<split>\w+)(?:\[(?P<first>\d{0,18})(?P<colon>:)?(?P<last>\d{0,18})\])?")


@dataclass(frozen=True)
class Selection:
    """Images of one split of a prepared folder, counted from the start of the split; `stop=None` is its end."""

    path: Path
    split: Split
    start: int = 0
    stop: int | None = None

    def rows(self, data: PreparedData) -> torch.Tensor:
        """The selected row numbers, int64.

        Raises:
            UsageError: the selection starts or ends beyond the split.
        """
        rows = data.rows(self.split)
        stop = len(rows) if self.stop is None else self.stop
        if stop > len(rows) or self.start >= len(rows):
            raise UsageError(
                f"{self.path}#{self.split}[{self.start}:{stop}] is outside the split",
                hint=f"{self.split} has {len(rows):,} images, numbered from 0",
            )
        return rows[self.start : stop]


def parse_selection(text: str) -> Selection | None:
    """Parse a selection; None if `text` is not one, but the name of a file or folder.

    Raises:
        UsageError: a prepared folder is followed by a malformed selection, or the brackets select nothing.
    """
    folder, mark, _ = text.rpartition("#")
    match = _FORM.fullmatch(text)
    if match is None or match["split"] not in SPLITS:
        if mark and (Path(folder) / MANIFEST).is_file():
            raise UsageError(
                f"{text}: not a selection of prepared images",
                hint=f"write {folder}#test, {folder}#test[17] or {folder}#test[0:100]; splits: {', '.join(SPLITS)}",
            )
        return None
    path, split = Path(match["path"]), next(name for name in SPLITS if name == match["split"])
    if match["first"] is None:
        return Selection(path, split)
    start = int(match["first"] or 0)
    if not match["colon"]:
        if not match["first"]:
            raise UsageError(f"{text}: the brackets are empty", hint="write [17] or [0:100]")
        return Selection(path, split, start, start + 1)
    stop = int(match["last"]) if match["last"] else None
    if stop is not None and stop <= start:
        raise UsageError(
            f"{text}: selects nothing", hint="make the second number larger; the range ends before it"
        )
    return Selection(path, split, start, stop)
