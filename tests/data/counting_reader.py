"""A source's reader for tests, in a separate module because worker processes must be able to import it by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from civae_core.data.sources.base import Batch, TruthBatch


@dataclass(frozen=True)
class CountingReader:
    """Tiny images filled with their row number modulo 251; every range of rows that is read is logged to a file."""

    log: Path
    size: int = 4
    bad: tuple[int, ...] = ()
    stop_at: int | None = None
    truths: int = 0

    def read(self, rows: range) -> Batch:
        if self.stop_at is not None and self.stop_at in rows:
            raise KeyboardInterrupt
        with self.log.open("a") as file:
            file.write(f"{rows.start} {rows.stop}\n")
        kept = np.array([row for row in rows if row not in self.bad], np.int64)
        images = np.broadcast_to(
            (kept % 251).astype(np.uint8)[:, None, None, None], (len(kept), 1, self.size, self.size)
        )
        held_out = kept[kept % 5 == 4]
        truths = tuple(
            TruthBatch(
                held_out,
                np.full((len(held_out), 1), 1.0 - k, np.float32),
                255 - images[np.isin(kept, held_out)],
            )
            for k in range(self.truths)
        )
        return Batch(kept, images, [(row, "spoilt") for row in rows if row in self.bad], truths)
