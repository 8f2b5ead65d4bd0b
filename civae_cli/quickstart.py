"""`civae quickstart`: from nothing to counterfactuals of the built-in faces, in minutes."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from civae_cli.options import DeviceOption, JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal


def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")] = Path(
        "quickstart"
    ),
    faces: Annotated[
        int | None,
        typer.Option("--faces", min=100, help="Number of built-in faces to make [default: 10,000]."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=64, help="Images shown to each model in training [default: 24,000]."),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Side of the images in pixels, divisible by 16.")] = 64,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Try everything on built-in faces, in minutes.

    Prepares the faces, trains three models (ours, a plain CVAE and the original prototype's method), and compares
    them with the true counterfactuals. Writes one picture (faces.png) and one page (report.html), and prints one
    table. If it is interrupted, run it again to continue.

    \b
    Examples:
      civae quickstart
      civae quickstart --out try --faces 2000 --images 6000 --size 32
    """
    from civae_core.evaluation.table import evaluation_tables
    from civae_core.quickstart import FACES, IMAGES
    from civae_core.quickstart import quickstart as run_quickstart

    voice = terminal(quiet, verbose, json)
    found = run_quickstart(out, faces=faces or FACES, images=images or IMAGES, size=size, device=device)
    for table in evaluation_tables(found.numbers, shutil.get_terminal_size().columns):
        voice.table(table)
    voice.say(f"picture: {found.picture}\nreport:  {found.report}")
    voice.result(found.numbers, str(found.report))
