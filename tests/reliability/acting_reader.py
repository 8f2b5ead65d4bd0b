"""A source's reader during which something happens to the folder that is being filled."""

from collections.abc import Callable
from dataclasses import dataclass

from civae_core.data.sources.base import Batch, Reader


@dataclass(frozen=True)
class ActingReader:
    """Acts each time before it reads a chunk that is not the first."""

    reader: Reader
    act: Callable[[], object]

    def read(self, rows: range) -> Batch:
        if rows.start:
            self.act()
        return self.reader.read(rows)
