"""prepare-data as one function: claim the folder, pack, report, and only then write dataset.yml."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from civae_core.attributes import require_name
from civae_core.data.left_out import refuse_left_out
from civae_core.data.manifest import (
    ATTRIBUTES_FILE,
    AttributeEntry,
    FileEntry,
    Manifest,
    TruthEntry,
    shard_name,
    write_manifest,
)
from civae_core.data.pack import MaxBad, Packed, pack
from civae_core.data.prepared import PreparedData
from civae_core.data.report import read_question, read_rejected, write_report
from civae_core.data.sources.base import Question, Source
from civae_core.data.splits import SPLITS
from civae_core.data.tables import Table
from civae_core.data.tensorfile import TensorFile
from civae_core.data.workspace import claim, finished, is_tidy, preparation_of, release
from civae_core.errors import CivaeError, UsageError
from civae_core.files import make_folder, sha256_of
from civae_core.locks import Lock, held

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of `prepare`; `fresh` is False if the folder already held the prepared data."""

    data: PreparedData
    rejected: int
    fresh: bool


def prepare(
    source: Source,
    out: Path,
    *,
    workers: int,
    max_bad: MaxBad,
    overwrite: bool = False,
    question: Question | None = None,
) -> Outcome:
    """Prepare a source into a folder; finished work is recognised, half-done work is continued.

    Args:
        source: the images.
        out: a folder that is new, empty, or left by an earlier preparation.
        workers: number of processes that make images.
        max_bad: how many images may be unusable.
        overwrite: replace what an earlier preparation left in `out`.
        question: the question whose overlap is reported; by default the source's own. Asking another question about
            finished data only rewrites the report.

    Raises:
        UsageError: the folder holds something else, or the question names unknown attributes.
        DataError: too many bad images.
        CivaeError: the folder cannot be written, or another process is writing it.
    """
    question_or_own = question or source.question
    check_question(source, question_or_own)
    preparation = preparation_of(source)
    if finished(out, preparation, overwrite=overwrite) is None:
        make_folder(out)
        with held(out) as lock:
            # Check again: another process may have finished it before this one held the folder.
            if finished(out, preparation, overwrite=overwrite) is None:
                claim(out, preparation, overwrite=overwrite)
                return _make(source, out, preparation, workers, max_bad, question_or_own, lock)
    manifest = finished(out, preparation, overwrite=False)
    assert manifest is not None
    if not is_tidy(out):
        # The process was killed at the very end; if it still runs, or the folder is read-only, leftovers do no harm.
        with contextlib.suppress(CivaeError), held(out):
            release(out)
    data = PreparedData(out, manifest)
    if question is not None and question != read_question(out):
        write_report(data, read_rejected(out), source.table, question)
    return Outcome(data, manifest.rejected, fresh=False)


def _make(
    source: Source,
    out: Path,
    preparation: str,
    workers: int,
    max_bad: MaxBad,
    question: Question,
    lock: Lock,
) -> Outcome:
    for note in source.table.notes:
        _log.info(note)
    packed = pack(source, out, workers=workers, max_bad=max_bad, guard=lock.require)
    manifest = _describe(source, out, packed, preparation)
    data = PreparedData(out, manifest)
    rejected = [(source.table.file_names[row], reason) for row, reason in packed.rejected]
    for file, reason in rejected:
        _log.debug("left out %s: %s", file, reason)
    write_report(data, rejected, source.table, question)
    lock.require()
    write_manifest(out, manifest)
    release(out)
    return Outcome(data, manifest.rejected, fresh=True)


def check_question(source: Source, question: Question) -> None:
    """Refuse a question that the table cannot answer, before any image is read.

    Raises:
        UsageError: an attribute is unknown, left out or in both roles, or there are covariates but no treatment.
    """
    for flag, names in (("--treatment", question.treatment), ("--covariate", question.covariates)):
        for name in names:
            refuse_left_out(name, source.table.left_out, f"{flag} {name}")
            require_name(name, source.table.names, f"{flag} {name}")
    for name in question.treatment:
        if name in question.covariates:
            raise UsageError(
                f"{name!r} cannot be both --treatment and --covariate",
                hint=f"omit --covariate {name} to ask what changing {name} does",
            )
    if question.covariates and not question.treatment:
        raise UsageError(
            f"--covariate {question.covariates[0]} needs a --treatment",
            hint="add --treatment with the attribute to change",
        )


def _describe(source: Source, out: Path, packed: Packed, preparation: str) -> Manifest:
    splits_N = source.splits_N[packed.kept]
    counts = {split: int((splits_N == code).sum()) for code, split in enumerate(SPLITS)}
    for split, count in counts.items():
        if not count:
            _log.warning("the %s split has no images", split)
    files = {}
    number = 0
    while (path := out / shard_name(number)).exists():
        images = TensorFile(path).entries["images"].shape[0]
        files[path.name] = FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path), images=images)
        number += 1
    path = out / ATTRIBUTES_FILE
    files[path.name] = FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
    return Manifest(
        name=source.name,
        source=source.identity,
        images=len(packed.kept),
        preprocessing=source.preprocessing.to_dict(),
        splits=counts,
        attributes=_statistics(source.table, packed.kept, splits_N),
        truth=[
            TruthEntry(name=spec.name, do=spec.do, images=count)
            for spec, count in zip(source.truths, packed.truth_counts, strict=True)
        ],
        rejected=len(packed.rejected),
        files=files,
        preparation=preparation,
    )


def _statistics(table: Table, kept: np.ndarray, splits_N: np.ndarray) -> list[AttributeEntry]:
    """Range, mean and standard deviation of each attribute over the training split, missing labels left out."""
    train = kept[splits_N == 0]
    entries = []
    for column, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True)):
        values = table.values_NA[train, column].astype(np.float64)
        values = values[~np.isnan(values)]
        if kind == "binary":
            low, high = 0.0, 1.0
        elif len(values):
            low, high = float(values.min()), float(values.max())
        else:
            _log.warning("%s is missing from every training image", name)
            low, high = 0.0, 0.0
        mean, std = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
        entries.append(AttributeEntry(name=name, kind=kind, low=low, high=high, mean=mean, std=std))
    return entries
