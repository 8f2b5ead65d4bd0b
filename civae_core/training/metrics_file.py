"""metrics.jsonl: one line for everything measured, and none twice, whatever became of the process that wrote it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from civae_core.errors import CivaeError
from civae_core.files import describe_os_error, write_text
from civae_core.measured import told_by
from civae_core.os_errors import hint_on_reading
from civae_core.reading import finite_number


class MetricsFile:
    """Appends to a run's metrics.jsonl, knows how many lines it has, and tells followers of each."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, 0
        self.dropped_to = 0
        """Images up to which `cut_back` dropped lines, to be measured again; 0 where it dropped none."""
        self.followers: list[Callable[[dict[str, Any]], None]] = []
        """Called with the values of every line once it is written, numbers that are not finite included."""

    def cut_back(self, *, lines: int | None, images: int) -> None:
        """Drops what a process that was killed wrote after the checkpoint that the run goes on from.

        Args:
            lines: how many lines there were at that checkpoint; None where it does not tell, as those of the first
                format of training states.
            images: how many images it has seen; without `lines`, lines of later ones are dropped.

        Raises:
            CivaeError: the file cannot be written.
        """
        try:
            text = self.path.read_bytes().decode("utf-8", errors="replace") if self.path.exists() else ""
        except OSError as error:
            raise CivaeError(
                f"cannot read {self.path}: {error.strerror or error}", hint=hint_on_reading(error)
            ) from error
        whole = text.splitlines(keepends=True)
        if whole and not whole[-1].endswith("\n"):  # torn by a full disk or a kill
            whole.pop()
        if lines is not None:
            kept, dropped = whole[:lines], whole[lines:]
        else:
            kept = [line for line in whole if _images_of(line) <= images]
            dropped = [line for line in whole if _images_of(line) > images]
        if "".join(kept) != text:
            write_text(self.path, "".join(kept))
        self.lines = len(kept)
        self.dropped_to = max(map(_images_of, dropped), default=0)

    def append(self, values: dict[str, Any]) -> None:
        """Adds a line; a number that is not finite becomes null.

        Raises:
            CivaeError: it cannot be written.
        """
        cleaned = {key: _finite(value) for key, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cleaned) + "\n")
        except OSError as error:
            raise describe_os_error(error, self.path) from error
        self.lines += 1
        for follow in self.followers:
            follow(values)


def _images_of(line: str) -> int:
    return int(finite_number(told_by(line).get("images")) or 0)  # what tells no count is not ours to judge


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return None
    return value
