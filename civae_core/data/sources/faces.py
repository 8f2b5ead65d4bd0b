"""The built-in synthetic faces, whose true counterfactuals are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from civae_core.data.images import Preprocessing
from civae_core.data.sources.base import Batch, Question, Source, TruthBatch, TruthSpec
from civae_core.data.tables import Table
from civae_core.errors import UsageError
from civae_core.synthetic import ATTRIBUTES, ROLES, FaceProcess

DEFAULT_COUNT = 12_000
DEFAULT_OVERLAP = 0.5
DEFAULT_TRUTHS = (TruthSpec("Young=flip", {"Young": "flip"}), TruthSpec("Male=flip", {"Male": "flip"}))
_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601, as Pillow weighs grey


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

    def attributes(self) -> np.ndarray:
        """The whole table, float32 [N,A]."""
        process = self._process()
        parts = [
            process.subjects(0, self.train).attributes_NA,
            process.subjects(self.train, self.count - self.train, randomised=True).attributes_NA,
        ]
        return torch.cat(parts).numpy().astype(np.float32)

    def read(self, rows: range) -> Batch:
        process = self._process()
        observed = range(rows.start, min(rows.stop, self.train))
        held_out = range(max(rows.start, self.train), rows.stop)
        images: list[torch.Tensor] = []
        if observed:
            images.append(process.render(process.subjects(observed.start, len(observed))))
        if held_out:
            subjects = process.subjects(held_out.start, len(held_out), randomised=True)
            images.append(process.render(subjects))
        truths = []
        for spec in self.truths:
            if held_out:
                changed = subjects.under(spec.do)
                attributes, pictures = changed.attributes_NA.float(), self._pack(process.render(changed))
            else:
                attributes, pictures = torch.empty(0, len(ATTRIBUTES)), self._pack(images[0][:0])
            truths.append(TruthBatch(np.array(held_out, np.int64), attributes.numpy(), pictures))
        return Batch(np.array(rows, np.int64), self._pack(torch.cat(images)), truths=tuple(truths))

    def _process(self) -> FaceProcess:
        return FaceProcess(overlap=self.overlap, seed=self.seed, size=self.size)

    def _pack(self, images: torch.Tensor) -> np.ndarray:
        if self.channels == 1:
            images = (images * _LUMA).sum(1, keepdim=True).round().to(torch.uint8)
        return images.contiguous().numpy()


def faces_source(
    *, count: int, seed: int, overlap: float, truths: Sequence[TruthSpec], size: int, channels: int
) -> Source:
    """`count` faces: the first 80 % train and follow the process; 10 % validate, 10 % test, all cells populated.

    Raises:
        UsageError: fewer than 10 faces, an overlap outside (0,1], a truth about an unknown attribute.
    """
    if count < 10:
        raise UsageError(f"--n {count} is too few", hint="at least 10, so that each split has an image")
    if not 0 < overlap <= 1:
        raise UsageError(
            f"--overlap {overlap:g} is outside (0, 1]",
            hint="1 randomises the treatment, 0.5 resembles CelebA, towards 0 it follows the covariates",
        )
    held_out = count // 10
    train = count - 2 * held_out
    reader = FacesReader(count, train, overlap, seed, size, channels, tuple(truths))
    names = [f"face-{row:06d}" for row in range(count)]
    table = Table(
        file_names=names,
        names=tuple(attribute.name for attribute in ATTRIBUTES),
        kinds=tuple(attribute.kind for attribute in ATTRIBUTES),
        values_NA=reader.attributes(),
        splits_N=np.repeat(np.arange(3, dtype=np.uint8), [train, held_out, held_out]),
        notes=[],
    )
    assert table.splits_N is not None
    identity: dict[str, Any] = {
        "kind": "synthetic:faces",
        "n": count,
        "seed": seed,
        "overlap": overlap,
        "truths": [spec.name for spec in truths],
    }
    return Source(
        name="synthetic:faces",
        identity=identity,
        table=table,
        splits_N=table.splits_N,
        preprocessing=Preprocessing(size=size, channels=channels),
        reader=reader,
        truths=tuple(truths),
        question=Question(
            treatment=tuple(a.name for a in ROLES.treatments),
            covariates=tuple(a.name for a in ROLES.covariates),
        ),
    )
