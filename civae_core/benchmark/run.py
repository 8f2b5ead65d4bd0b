"""A benchmark from start to finish: data, scorer, cells and results."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from civae_core.attributes import nearest
from civae_core.benchmark.cells import Cell, Scoring, extractor_before, plan_cells, run_cell
from civae_core.benchmark.load import Benchmark
from civae_core.benchmark.outcome import balance_of, collect
from civae_core.benchmark.output import write_results
from civae_core.benchmark.schema import FacesConfig
from civae_core.benchmark.work import devices_for, work_through
from civae_core.config.effects import without_effect
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.data.workspace import named_by_command
from civae_core.errors import UsageError
from civae_core.evaluation.instruments import Instruments, choose_instruments
from civae_core.evaluation.realism import resolved_extractor
from civae_core.file_names import MANIFEST
from civae_core.files import make_folder, write_json
from civae_core.machine import available_cores
from civae_core.training.device import choose_device
from civae_core.training.setup import assign_roles
from civae_core.yardstick.fit import IMAGES

log = logging.getLogger(__name__)

RESULTS = "benchmark.json"


@dataclass(frozen=True)
class Finished:
    """The results of a benchmark, and the files that hold them."""

    numbers: dict[str, Any]
    results: Path
    report: Path
    figure: Path | None
    """Plot of error against overlap, if there are several overlaps."""
    worked_on: int
    """Number of cells selected in this call."""
    failed: dict[str, str]
    """Error messages of the failed cells, by cell name."""


def run_benchmark(
    benchmark: Benchmark,
    out: Path,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    jobs: int = 1,
    limit: int | None = None,
    scorer: str = "auto",
    scorer_images: int = IMAGES,
    extractor: str = "auto",
) -> Finished:
    """Train and score every cell in `out`; write benchmark.json, report.html and, over overlaps, overlap.png.

    Completed work is not repeated, and a cell that fails does not stop the others.

    Args:
        only: methods to work on; the results include whatever exists already for the others.
        seeds: training seeds, in place of the benchmark's.
        device: as in `choose_device`; `auto` and `cuda` share out the GPUs among the processes.
        jobs: number of processes, which share the cores.
        limit: score at most this many images of each data set.
        scorer, scorer_images: as in `choose_instruments`; one scorer judges all cells, that of the data set with the
            most overlap. `out` keeps the scorer of `auto`, and later calls take it from there.
        extractor: as in `choose_instruments`; `auto` keeps the extractor with which the first cell was scored, so
            that kept scores are not mixed with those of Inception weights that were installed later.

    Raises:
        UsageError: an unknown method, an unavailable device, or columns that the data lacks; nothing is trained.
        DataError: no image of the test split can be asked about; nothing is trained.
        PreemptedError, InterruptedRunError: a signal asked to stop; finished work is kept.
        CivaeError: the data cannot be made or read, or the folder cannot be written.
    """
    for name in only:
        if name not in benchmark.methods:
            near = nearest(name, benchmark.methods)
            known = ", ".join(benchmark.methods)
            hint = f"did you mean {near}?" if near else f"the methods are {known}"
            raise UsageError(f"--only {name}: the benchmark has no such method", hint=hint)
    choose_device(device)
    if seeds is not None:
        benchmark = replace(benchmark, seeds=tuple(dict.fromkeys(seeds)))
    make_folder(out)
    data = _data_sets(benchmark, out)
    _warn_without_effect(benchmark)
    # Look up every column, and images to score, before anything costly. All methods have the same roles.
    roles = assign_roles(next(iter(benchmark.methods.values())), data[0][1])
    for _, prepared in data:
        labelled_rows(prepared, roles, "test", warn=False)
    balance = {name: balance_of(prepared, roles) for name, prepared in data}
    cells = plan_cells(benchmark, [(name, prepared.path) for name, prepared in data], out)
    if extractor == "auto":
        extractor = extractor_before(cells) or resolved_extractor(extractor)
    # More overlap makes attributes easier to tell apart, so the scorer of the data with the most judges all cells.
    instruments = choose_instruments(
        data[0][1],
        roles,
        choose_device(device),
        scorer=scorer,
        scorer_images=scorer_images,
        extractor=extractor,
        keep=out / "scorers",
    )
    scoring = _scoring(instruments, extractor, limit)
    chosen = [cell for cell in cells if not only or cell.method in only]
    errors: dict[str, str] = {}

    def done(cell: Cell, error: str | None) -> None:
        if error is not None:
            log.error("%s: %s", cell.name, error)
            errors[cell.name] = error
        write_json(out / RESULTS, collect(benchmark, data, cells, scoring, errors, balance))

    work_through(chosen, partial(run_cell, scoring=scoring), done, devices_for(device, jobs))
    numbers = collect(benchmark, data, cells, scoring, errors, balance)
    write_json(out / RESULTS, numbers)
    report, figure = write_results(numbers, out)
    return Finished(numbers, out / RESULTS, report, figure, len(chosen), errors)


def _warn_without_effect(benchmark: Benchmark) -> None:
    """Warn of settings that have no effect, once each, with the methods that have it."""
    methods: dict[str, list[str]] = {}
    for name, config in benchmark.methods.items():
        for text in without_effect(config):
            methods.setdefault(text, []).append(name)
    for text, names in methods.items():
        log.warning("%s: %s", ", ".join(names), text)


def _data_sets(benchmark: Benchmark, out: Path) -> list[tuple[str, PreparedData]]:
    """Name and data of each data set, in order of decreasing overlap."""
    config = next(iter(benchmark.methods.values()))
    if benchmark.faces is None:
        data = PreparedData.open(config.data.path)
        return [(data.path.resolve().name or "data", data)]
    treatment = config.data.treatment[0]
    overlaps = sorted(set(benchmark.faces.overlap), reverse=True)
    return [
        (
            f"overlap-{overlap}",
            _faces(benchmark.faces, overlap, treatment, out / "data" / f"overlap-{overlap}"),
        )
        for overlap in overlaps
    ]


def _faces(faces: FacesConfig, overlap: float, treatment: str, folder: Path) -> PreparedData:
    """Prepare built-in faces as `civae prepare-data` does, with true counterfactuals for flipping the treatment."""
    source = faces_source(
        count=faces.n,
        seed=faces.seed,
        overlap=overlap,
        truths=[TruthSpec(f"{treatment}=flip", {treatment: "flip"})],
        size=faces.size,
        channels=3,
    )
    if not (folder / MANIFEST).exists():
        log.info("making %s faces of %d px at overlap %s", f"{faces.n:,}", faces.size, overlap)
    with named_by_command():
        return prepare(source, folder, workers=available_cores(), max_bad=MaxBad("0", count=0)).data


def _scoring(instruments: Instruments, extractor: str, limit: int | None) -> Scoring:
    """How all cells are scored: with the same instruments, which each process loads for itself."""
    yardstick = instruments.yardstick
    extractor = "none" if instruments.extractor is None else extractor
    if yardstick is None:
        return Scoring(limit, extractor=extractor)
    return Scoring(limit, yardstick.path, yardstick.fingerprint, extractor)
