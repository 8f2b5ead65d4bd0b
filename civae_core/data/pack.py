"""Packing of a source: many processes make chunks, which are joined into shards. A run killed at any point resumes.

The output folder passes through these states: `.partial/plan.json` claims it for one preparation; chunks collect in
`.partial`, each as a file of images and then a record; once the chunks of a shard are complete, their images are
joined into `images-….safetensors` and deleted; then the file of attributes is written. The caller writes the report
and, last, dataset.yml. Every file is written under a temporary name and renamed, so it is either whole or absent.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from civae_core.data.images import Preprocessing
from civae_core.data.manifest import ATTRIBUTES_FILE, shard_name
from civae_core.data.parallel import run_jobs
from civae_core.data.sources.base import Reader, Source
from civae_core.data.tensorfile import Stream, TensorFile, write_tensors
from civae_core.errors import DataError, UsageError
from civae_core.file_names import PARTIAL
from civae_core.files import write_json
from civae_core.locks import vanished
from civae_core.progress import progress
from civae_core.reading import read_json

SHARD_BYTES = 2**30
CHUNK_BYTES = 2**23
NAMES_AT_ONCE = 10_000


@dataclass(frozen=True)
class MaxBad:
    """How many images may be unusable: a count, or a share of all."""

    text: str
    count: int | None = None
    percent: Decimal = Decimal(0)

    @classmethod
    def parse(cls, text: str) -> "MaxBad":
        """Parse a limit such as "25" or "1%".

        Raises:
            UsageError: the text is neither a count nor a percentage up to 100.
        """
        number = text.removesuffix("%").strip()
        try:
            if text.endswith("%") and 0 <= float(number) <= 100:
                return cls(text, percent=Decimal(number))
            if text.isdecimal():
                return cls(text, count=int(text))
        except (ValueError, ArithmeticError):
            pass  # reported below, with the value
        raise UsageError(
            f"--max-bad {text!r} is not a limit", hint="give a count such as 25, or a percentage such as 1%"
        )

    def allowed(self, images: int) -> int:
        return self.count if self.count is not None else int(self.percent * images / 100)


@dataclass(frozen=True)
class Record:
    """Result of one chunk: the table rows kept, those rejected with the reason, and the rows of each truth."""

    kept: np.ndarray
    rejected: list[tuple[int, str]]
    truth_rows: list[np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How N rows are divided into chunks and shards; depends only on the source, never on the machine."""

    rows: int
    image_bytes: int

    @property
    def chunk(self) -> int:
        """Rows per chunk: a power of two, with up to 8 MiB of images and at least 32 chunks in a large data set."""
        most = max(1, CHUNK_BYTES // self.image_bytes)
        wanted = min(most, max(64, self.rows // 32))
        return 1 << (wanted.bit_length() - 1)

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk)

    @property
    def chunks_per_shard(self) -> int:
        """Chunks of every shard but the last, which may have fewer."""
        return max(1, SHARD_BYTES // (self.chunk * self.image_bytes))

    @property
    def shards(self) -> int:
        return -(-self.chunks // self.chunks_per_shard)

    def chunks_of(self, shard: int) -> range:
        first = shard * self.chunks_per_shard
        return range(first, min(first + self.chunks_per_shard, self.chunks))

    def shard_of(self, chunk: int) -> int:
        return chunk // self.chunks_per_shard

    def rows_of(self, chunk: int) -> range:
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.rows))


@dataclass(frozen=True)
class Packed:
    """Table rows of the source that were kept, in order, those rejected with the reason, and images per truth."""

    kept: np.ndarray
    rejected: list[tuple[int, str]]
    truth_counts: list[int]


def pack(
    source: Source, out: Path, *, workers: int, max_bad: MaxBad, guard: Callable[[], None] = lambda: None
) -> Packed:
    """Write the shards that `out` still lacks, and the file of attributes.

    Memory holds the table and one chunk per worker, never the data set. `guard` is called after every chunk, and
    raises if `out` may no longer be written to.

    Raises:
        DataError: more bad images than `max_bad`, or not one good image.
        CivaeError: the folder cannot be written, or a worker process died.
    """
    shape = source.preprocessing
    layout = Layout(len(source.table.file_names), shape.channels * shape.size**2)
    jobs = _Jobs(source.reader, layout, out)
    records = {n: record for n in range(layout.chunks) if (record := _read_record(out, n)) is not None}
    _forget_repaired(jobs, records, workers, guard)
    missing = [n for n in range(layout.chunks) if n not in records]
    budget = _Budget(source, max_bad)
    for record in records.values():
        budget.spend(record)
    done = sum(len(layout.rows_of(n)) for n in records)
    with progress("preparing images", layout.rows, start=done) as bar:
        for shard in range(layout.shards):
            if not (out / shard_name(shard)).exists():
                _join(out, layout, records, shard, shape)
        for number in run_jobs(_make_chunk, jobs, missing, workers, jobs.preload):
            guard()
            record = _read_record(out, number)
            assert record is not None
            records[number] = record
            budget.spend(record)
            bar.advance(len(layout.rows_of(number)))
            _join(out, layout, records, layout.shard_of(number), shape)
    ordered = [records[n] for n in range(layout.chunks)]
    packed = Packed(
        kept=np.concatenate([record.kept for record in ordered]),
        rejected=[bad for record in ordered for bad in record.rejected],
        truth_counts=[sum(len(r.truth_rows[k]) for r in ordered) for k in range(len(source.truths))],
    )
    if not len(packed.kept):
        raise DataError(
            f"none of the {layout.rows} images can be used ({_examples(source, packed.rejected)})",
            hint=f"names in the table are relative to the image folder; fix what is wrong, delete {out} "
            "and try again",
        )
    _write_attributes(source, out, ordered, packed)
    return packed


@dataclass(frozen=True)
class _Jobs:
    reader: Reader
    layout: Layout
    out: Path

    @property
    def preload(self) -> list[str]:
        """Modules that workers need."""
        return [type(self.reader).__module__]


@dataclass
class _Budget:
    source: Source
    max_bad: MaxBad
    bad: int = 0

    def spend(self, record: Record) -> None:
        self.bad += len(record.rejected)
        rows = len(self.source.table.file_names)
        if self.bad > self.max_bad.allowed(rows):
            raise DataError(
                f"at least {self.bad} of {rows:,} images cannot be used ({_examples(self.source, record.rejected)}); "
                f"--max-bad {self.max_bad.text} allows {self.max_bad.allowed(rows)}",
                hint="repair them, or allow more with --max-bad, which keeps the work done so far",
            )


def _examples(source: Source, rejected: list[tuple[int, str]]) -> str:
    shown = [f"{source.table.file_names[row]}: {reason}" for row, reason in rejected[:3]]
    return "; ".join(shown) + ("; …" if len(rejected) > 3 else "")


def _chunk_path(out: Path, number: int) -> Path:
    return out / PARTIAL / f"chunk-{number:05d}.safetensors"


def _record_path(out: Path, number: int) -> Path:
    return out / PARTIAL / f"chunk-{number:05d}.json"


def _truth_path(out: Path, number: int) -> Path:
    return out / PARTIAL / f"truth-{number:05d}.safetensors"


def _make_chunk(jobs: _Jobs, number: int) -> int:
    batch = jobs.reader.read(jobs.layout.rows_of(number))
    if not (jobs.out / PARTIAL).is_dir():  # writing would recreate it without its contents
        raise vanished(jobs.out)
    write_tensors(_chunk_path(jobs.out, number), {"images": batch.images})
    if any(len(truth.rows) for truth in batch.truths):
        tensors: dict[str, np.ndarray | Stream] = {}
        for k, truth in enumerate(batch.truths):
            tensors |= {f"{k}.attributes": truth.attributes_MA, f"{k}.images": truth.images}
        write_tensors(_truth_path(jobs.out, number), tensors)
    record: dict[str, Any] = {
        "kept": batch.kept.tolist(),
        "rejected": batch.rejected,
        "truth_rows": [truth.rows.tolist() for truth in batch.truths],
    }
    write_json(_record_path(jobs.out, number), record)
    return number


def _read_record(out: Path, number: int) -> Record | None:
    path = _record_path(out, number)
    if not path.exists():
        return None
    try:
        values = read_json(path)
        rejected = [(row, reason) for row, reason in values["rejected"]]
        # As lists of Python integers, the rows of all chunks would take several times the memory.
        truth_rows = [np.array(rows, np.int64) for rows in values["truth_rows"]]
        return Record(np.array(values["kept"], np.int64), rejected, truth_rows)
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(
            f"{path} is damaged ({error})", hint=f"delete {out} and run the same command again"
        ) from error


def _join(out: Path, layout: Layout, records: dict[int, Record], shard: int, shape: Preprocessing) -> None:
    """Join the chunks of a shard, if all of them are made."""
    chunks = layout.chunks_of(shard)
    if not all(chunk in records for chunk in chunks):
        return
    count = sum(len(records[chunk].kept) for chunk in chunks)
    pieces = (TensorFile(_chunk_path(out, chunk)).payload("images") for chunk in chunks)
    stream = Stream(np.dtype(np.uint8), (count, shape.channels, shape.size, shape.size), pieces)
    write_tensors(out / shard_name(shard), {"images": stream})
    for chunk in chunks:
        _chunk_path(out, chunk).unlink()


def _forget_repaired(
    jobs: _Jobs, records: dict[int, Record], workers: int, guard: Callable[[], None]
) -> None:
    """Drop chunks with bad images of which one can be read by now, so that they are made again."""
    out, layout = jobs.out, jobs.layout
    bad = [number for number, record in records.items() if record.rejected]
    repaired: set[int] = set()
    images = sum(len(records[number].rejected) for number in bad)
    with progress("reading bad images again", images, enabled=bool(bad)) as bar:
        for number, readable in run_jobs(_reread, jobs, bad, workers, jobs.preload):
            guard()
            bar.advance(len(records[number].rejected))
            if readable:
                repaired.add(number)
    for shard in range(layout.shards):
        chunks = layout.chunks_of(shard)
        joined = (out / shard_name(shard)).exists()
        # A joined shard that lacks a record: its chunks were being dropped when the process was killed.
        stale = [chunk for chunk in chunks if chunk in repaired or (joined and chunk not in records)]
        for chunk in chunks if joined and stale else stale:
            _record_path(out, chunk).unlink(missing_ok=True)
            records.pop(chunk, None)
        if joined and stale:
            (out / shard_name(shard)).unlink()


def _reread(jobs: _Jobs, number: int) -> tuple[int, bool]:
    """The chunk's number, and whether any of its bad images can be read by now."""
    record = _read_record(jobs.out, number)
    assert record is not None
    return number, any(len(jobs.reader.read(range(row, row + 1)).kept) for row, _ in record.rejected)


def _write_attributes(source: Source, out: Path, records: list[Record], packed: Packed) -> None:
    table, kept = source.table, packed.kept
    lengths = np.fromiter((len(table.file_names[row].encode()) for row in kept), np.int64, len(kept))
    size, channels = source.preprocessing.size, source.preprocessing.channels
    tensors: dict[str, np.ndarray | Stream] = {
        "attributes": table.values_NA[kept].astype(np.float32, copy=False),
        "split": source.splits_N[kept],
        "file_names": Stream(np.dtype(np.uint8), (int(lengths.sum()),), _names(table.file_names, kept)),
        "file_name_ends": np.cumsum(lengths),
    }
    for k, count in enumerate(packed.truth_counts):
        rows = np.concatenate([record.truth_rows[k] for record in records])
        tensors[f"truth.{k}.rows"] = np.searchsorted(kept, rows)  # rows are kept in ascending order
        width = len(table.names)
        tensors[f"truth.{k}.attributes"] = Stream(
            np.dtype(np.float32), (count, width), _truth_pieces(out, records, f"{k}.attributes")
        )
        tensors[f"truth.{k}.images"] = Stream(
            np.dtype(np.uint8), (count, channels, size, size), _truth_pieces(out, records, f"{k}.images")
        )
    # Names and kinds are stored inside the file, so that its checksum, and hence the data's fingerprint, covers them.
    columns = json.dumps(list(zip(table.names, table.kinds, strict=True)), ensure_ascii=False)
    write_tensors(out / ATTRIBUTES_FILE, tensors, {"columns": columns})


def _names(names: Sequence[str], rows: np.ndarray) -> Iterator[bytes]:
    """Concatenated names of the given rows as UTF-8, in pieces of `NAMES_AT_ONCE` names."""
    for start in range(0, len(rows), NAMES_AT_ONCE):
        yield "".join(names[row] for row in rows[start : start + NAMES_AT_ONCE]).encode()


def _truth_pieces(out: Path, records: list[Record], name: str) -> Iterator[memoryview]:
    for number, record in enumerate(records):
        if any(len(rows) for rows in record.truth_rows):
            yield TensorFile(_truth_path(out, number)).payload(name)
