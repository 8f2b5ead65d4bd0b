"""`civae benchmark`: our method and the baselines with the same budget, in one table."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from civae_cli.given import refuse_idle_scorer_images
from civae_cli.options import (
    COMPUTING,
    BenchmarkSetOption,
    DeviceOption,
    ExtractorOption,
    JsonFlag,
    LimitOption,
    QuietFlag,
    ScorerImagesOption,
    ScorerOption,
    VerboseFlag,
)
from civae_cli.terminal import terminal


def benchmark(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A benchmark file, or a config for `civae train`.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")],
    set_: BenchmarkSetOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="METHOD", help="Train and score only this method; repeatable."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="0-2", help="Training seeds, in place of those in the file."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Number of processes, which share the cores and, with --device auto or cuda, the GPUs.",
            rich_help_panel=COMPUTING,
        ),
    ] = 1,
    limit: LimitOption = None,
    scorer: ScorerOption = "auto",
    scorer_images: ScorerImagesOption = None,
    extractor: ExtractorOption = "auto",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Train our method and the baselines with the same budget, and score them in one table.

    Each method is trained with each seed on each data set. Run the same command again to continue where it stopped;
    if one training fails, the others go on. One scorer judges all methods; with --scorer auto, it is the scorer of
    the data set with the most overlap; DIR keeps it, so that later calls score with the same one.

    \b
    Examples:
      civae benchmark configs/celeba-64-young.yml --out benchmarks/young --seeds 0-2
      civae benchmark configs/levers.yml --out levers --only best --jobs 2
    """
    from civae_core.benchmark.load import load_benchmark
    from civae_core.benchmark.run import run_benchmark
    from civae_core.benchmark.table import benchmark_tables
    from civae_core.errors import CivaeError
    from civae_core.inference.sheets import parse_seeds
    from civae_core.yardstick.fit import IMAGES

    voice = terminal(quiet, verbose, json)
    refuse_idle_scorer_images(context, scorer)
    found = run_benchmark(
        load_benchmark(config, set_ or []),
        out,
        only=only or [],
        seeds=None if seeds is None else parse_seeds(seeds),
        device=device,
        jobs=jobs,
        limit=limit,
        scorer=scorer,
        scorer_images=scorer_images or IMAGES,
        extractor=extractor,
    )
    for table in benchmark_tables(found.numbers, shutil.get_terminal_size().columns):
        voice.table(table)
    written = [str(path) for path in (found.report, found.figure) if path is not None]
    voice.say(f"wrote {' and '.join(written)}")
    voice.result(found.numbers, str(found.results))
    if found.failed:
        raise CivaeError(
            f"{len(found.failed)} of {found.worked_on} cells failed: {describe_failures(found.failed)}",
            hint="the other cells are kept; run the same command again to retry the failed ones",
        )


def describe_failures(failed: dict[str, str]) -> str:
    """`cell: what went wrong`, with cells that failed for the same reason grouped."""
    cells: dict[str, list[str]] = {}
    for cell, reason in failed.items():
        cells.setdefault(reason, []).append(cell)
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {reason}"
        for reason, names in cells.items()
    )
