"""civae prepare-data: photographs and their attributes, packed for training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from civae_cli.completion import complete_attribute
from civae_cli.given import refuse_idle
from civae_cli.options import COMPUTING, ROLES, JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import Terminal, terminal

FACES = "Built-in faces"
_SHAPE_PREPARED_DATA = (
    "size",
    "crop",
    "grey",
    "align",
    "table",
    "follow_links",
    "treatment",
    "covariate",
    "workers",
    "max_bad",
    "truth",
)
"""Parameters that have no effect on a CelebA-layout tree."""


def prepare_data(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A CelebA folder or zip (official or Kaggle), a folder of images with a table, or synthetic:faces.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DATA", help="Folder to write.", show_default=False)
    ],
    size: Annotated[int, typer.Option(help="Side of the square images, in pixels.")] = 64,
    crop: Annotated[
        int | None,
        typer.Option(
            help="Side of the centred square that is cut out before resizing, in pixels "
            "[default: 150 for CelebA, else the largest that fits].",
            show_default=False,
        ),
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Make grey images with one channel.")] = False,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="For an image folder: cut each photograph to its largest face, placed as in CelebA's portraits; "
            "photographs without a face are left out and count for --max-bad.",
        ),
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV, TSV or JSONL with a column file_name [default: metadata.* in the folder].",
            show_default=False,
        ),
    ] = None,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Also read pictures through links that lead out of the folder."),
    ] = False,
    treatment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Attribute to be changed; the report says whether this data allows it; repeatable.",
            autocompletion=complete_attribute,
            rich_help_panel=ROLES,
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Attribute that the treatment does not change, for that report; repeatable.",
            autocompletion=complete_attribute,
            rich_help_panel=ROLES,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes that read images [default: one per core].",
            show_default=False,
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    max_bad: Annotated[
        str,
        typer.Option(
            "--max-bad", metavar="COUNT|SHARE", help="How many images may be unusable, such as 25 or 1%."
        ),
    ] = "1%",
    seed: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=FACES,
            help="Seed of synthetic faces, or of the split if the table has none [default: 0].",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--n",
            rich_help_panel=FACES,
            help="Number of synthetic faces [default: 12000].",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=FACES,
            help="How freely the treatment of synthetic faces is assigned: 1 is at random, 0.5 as in CelebA, "
            "near 0 almost by the covariates alone [default: 0.5].",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=FACES,
            metavar="NAME=VALUE[,…]",
            help="True counterfactual to store for synthetic validation and test faces, such as Young=flip, "
            "Age=20:80:5 or, set together, Young=flip,Male=flip; repeatable [default: Young=flip and Male=flip; "
            "for faces-age, Age=20, 35, 50, 65 and 80].",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        Literal["prepared", "celeba"],
        typer.Option(
            rich_help_panel=FACES,
            help="What to write. prepared: data for training. celeba: synthetic faces as JPEGs and lists laid out "
            "like CelebA, which prepare-data then reads as it reads CelebA, to try that without having CelebA.",
        ),
    ] = "prepared",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier prepare-data wrote to DATA.")
    ] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Pack photographs and their attributes for training, and report on them.

    If preparation is interrupted or even killed, run the same command again to continue. Once everything is prepared,
    the command returns at once. Prints the folder's path.

    \b
    Examples:
      civae prepare-data CELEBA --out data/celeba-64 --treatment Young --covariate Male
      civae prepare-data photos --align --out data/photos --treatment Young --covariate Male
      civae prepare-data synthetic:faces --out faces-tree --layout celeba
    """
    from civae_core.align.portraits import as_portraits
    from civae_core.data.pack import MaxBad
    from civae_core.data.prepare import prepare
    from civae_core.data.sources.base import Question
    from civae_core.data.sources.resolve import SourceOptions, open_source
    from civae_core.errors import UsageError
    from civae_core.file_names import REPORT_PAGE
    from civae_core.machine import available_cores

    voice = terminal(quiet, verbose, json)
    if layout == "celeba":
        _write_tree(voice, context, source, out, count, seed, overlap, overwrite)
        return
    if workers is not None and workers < 1:
        raise UsageError(
            f"--workers {workers} is not a number of processes",
            hint="give 1 or more; the default is one per core",
        )
    limit = MaxBad.parse(max_bad)
    options = SourceOptions(
        size=size,
        channels=1 if grey else 3,
        crop=crop,
        table=table,
        seed=seed,
        count=count,
        overlap=overlap,
        truths=truth or [],
        follow_links=follow_links,
    )
    asked = Question(tuple(treatment or ()), tuple(covariate or ())) if treatment or covariate else None
    opened = open_source(source, options)
    outcome = prepare(
        as_portraits(opened) if align else opened,
        out,
        workers=workers or available_cores(),
        max_bad=limit,
        overwrite=overwrite,
        question=asked,
    )
    data, report = outcome.data, out / REPORT_PAGE
    rejected = f"{outcome.rejected:,} left out, see {report}" if outcome.rejected else f"see {report}"
    already = "" if outcome.fresh else "already prepared: "
    splits = ", ".join(f"{split} {number:,}" for split, number in data.manifest.splits.items())
    voice.say(f"{already}{len(data):,} images ({splits}); {rejected}")
    voice.result(
        {
            "data": str(out),
            "name": data.name,
            "images": len(data),
            "splits": dict(data.manifest.splits),
            "size": data.size,
            "channels": data.channels,
            "attributes": [attribute.name for attribute in data.attributes],
            "truth": [known.name for known in data.truth],
            "rejected": outcome.rejected,
            "fresh": outcome.fresh,
            "fingerprint": data.fingerprint,
            "report": str(report),
        },
        str(out),
    )


def _write_tree(
    voice: Terminal,
    context: typer.Context,
    source: str,
    out: Path,
    count: int | None,
    seed: int | None,
    overlap: float | None,
    overwrite: bool,
) -> None:
    from civae_core.data.sources.faces import DEFAULT_COUNT, DEFAULT_OVERLAP
    from civae_core.data.sources.resolve import SYNTHETIC
    from civae_core.errors import UsageError
    from civae_core.synthetic.celeba_tree import COLUMNS, write_celeba_tree

    if source != SYNTHETIC:
        raise UsageError(
            f"--layout celeba is for {SYNTHETIC}, not for {source}",
            hint="omit --layout to pack photographs",
        )
    refuse_idle(
        context,
        _SHAPE_PREPARED_DATA,
        "with --layout celeba: it applies when prepare-data reads the tree",
    )
    tree = write_celeba_tree(
        out,
        count=DEFAULT_COUNT if count is None else count,
        seed=seed or 0,
        overlap=DEFAULT_OVERLAP if overlap is None else overlap,
        overwrite=overwrite,
    )
    already = "" if tree.fresh else "already written: "
    splits = ", ".join(f"{split} {number:,}" for split, number in tree.splits.items())
    voice.say(f"{already}{tree.images:,} portraits ({splits}); next: civae prepare-data {out} --out DATA")
    voice.result(
        {
            "tree": str(out),
            "images": tree.images,
            "splits": tree.splits,
            "attributes": list(COLUMNS),
            "fresh": tree.fresh,
        },
        str(out),
    )
