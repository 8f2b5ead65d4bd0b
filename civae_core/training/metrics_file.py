"""metrics.jsonl: one line for each measurement and none twice, whatever happened to the process that wrote it."""

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
    """A run's metrics.jsonl: appends lines, counts them, and passes each one to the followers."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, 0
        self.dropped_to = 0
        """Largest image count among the lines that `cut_back` dropped, to be measured again; 0 if it dropped none."""
        self.followers: list[Callable[[dict[str, Any]], None]] = []
        """Called with the values of every line once it is written, including non-finite numbers."""

    def cut_back(self, *, lines: int | None, images: int) -> None:
        """Drop what a killed process wrote after the checkpoint from which the run continues.

        Args:
            lines: number of lines at that checkpoint; None if the checkpoint does not say, as in the first format of
                training states.
            images: images that the checkpoint has seen; without `lines`, lines with a larger count are dropped.

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
        if whole and not whole[-1].endswith("\n"):  # cut short by a full disk or a kill
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
        """Append a line; non-finite numbers become null.

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
    return int(finite_number(told_by(line).get("images")) or 0)  # 0 for a line without a count: keep it


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return None
    return value
