"""The built-in synthetic faces, whose true counterfactuals are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from civae_core.data.images import Preprocessing
from civae_core.data.sources.base import Batch, Question, Source, TruthBatch, TruthSpec
from civae_core.data.tables import Table
from civae_core.synthetic import (
    IN_TWO_CLASSES,
    IN_YEARS,
    Ageing,
    FaceProcess,
    attributes_of,
    roles_of,
)
from civae_core.synthetic.cohorts import people, require_overlap, split_sizes

DEFAULT_COUNT = 12_000
DEFAULT_OVERLAP = 0.5
BUILT_IN: dict[str, Ageing] = {"synthetic:faces": IN_TWO_CLASSES, "synthetic:faces-age": IN_YEARS}
"""How each built-in source, by its name, represents age."""
DEFAULT_TRUTHS: dict[str, tuple[str, ...]] = {
    "synthetic:faces": ("Young=flip", "Male=flip"),
    "synthetic:faces-age": ("Age=20", "Age=35", "Age=50", "Age=65", "Age=80"),
}
"""Defaults of `--truth`."""
AT_ONCE = 10_000
"""Number of subjects whose attributes are computed at a time: the draws behind them take thirty times the memory."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601, Pillow's weights for grey


@dataclass(frozen=True)
class FacesReader:
    """Renders subjects; those from row `train` on are drawn with independent attributes and have truths."""

    count: int
    train: int
    overlap: float
    seed: int
    size: int
    channels: int
    truths: tuple[TruthSpec, ...]
    ageing: Ageing = IN_TWO_CLASSES

    def attributes(self) -> np.ndarray:
        """The whole table, float32 [N,A]."""
        process, parts = self._process(), []
        for start in range(0, self.count, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, self.count))
            parts.append(people(process, rows, self.train).attributes_NA.numpy().astype(np.float32))
        return np.concatenate(parts)

    def read(self, rows: range) -> Batch:
        process = self._process()
        subjects = people(process, rows, self.train)
        first = max(rows.start, self.train)
        held_out = subjects[first - rows.start :]
        truths = []
        for spec in self.truths:
            changed = held_out.under(spec.do)
            attributes = changed.attributes_NA.float().numpy()
            numbers = np.arange(first, rows.stop, dtype=np.int64)
            truths.append(TruthBatch(numbers, attributes, self._pack(process.render(changed))))
        return Batch(np.array(rows, np.int64), self._pack(process.render(subjects)), truths=tuple(truths))

    def _process(self) -> FaceProcess:
        return FaceProcess(overlap=self.overlap, seed=self.seed, size=self.size, ageing=self.ageing)

    def _pack(self, images: torch.Tensor) -> np.ndarray:
        if self.channels == 1:
            images = (images * _LUMA).sum(1, keepdim=True).round().to(torch.uint8)
        return images.contiguous().numpy()


def faces_source(
    *,
    count: int,
    seed: int,
    overlap: float,
    truths: Sequence[TruthSpec],
    size: int,
    channels: int,
    name: str = "synthetic:faces",
) -> Source:
    """`count` faces: the first 80 % train and follow the process; 10 % validate and 10 % test.

    The held-out faces are randomised, so that all cells are populated.

    Args:
        name: name of the source, which determines how age is represented: as Young, or as Age in years.

    Raises:
        UsageError: there are fewer than 10 faces, or the overlap is outside (0,1].
    """
    require_overlap(overlap)
    sizes = split_sizes(count)
    ageing = BUILT_IN[name]
    columns, roles = attributes_of(ageing), roles_of(ageing)
    reader = FacesReader(count, sizes[0], overlap, seed, size, channels, tuple(truths), ageing)
    names = [f"face-{row:06d}" for row in range(count)]
    table = Table(
        file_names=names,
        names=tuple(attribute.name for attribute in columns),
        kinds=tuple(attribute.kind for attribute in columns),
        values_NA=reader.attributes(),
        splits_N=np.repeat(np.arange(3, dtype=np.uint8), sizes),
        notes=[],
    )
    assert table.splits_N is not None
    identity: dict[str, Any] = {
        "kind": name,
        "n": count,
        "seed": seed,
        "overlap": overlap,
        "truths": [spec.name for spec in truths],
    }
    return Source(
        name=name,
        identity=identity,
        table=table,
        splits_N=table.splits_N,
        preprocessing=Preprocessing(size=size, channels=channels),
        reader=reader,
        truths=tuple(truths),
        question=Question(
            treatment=tuple(a.name for a in roles.treatments),
            covariates=tuple(a.name for a in roles.covariates),
        ),
    )
