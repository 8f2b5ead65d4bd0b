"""`civae train`: from a config and prepared data to a run."""

from pathlib import Path
from typing import Annotated

import typer

from civae_cli.completion import complete_data
from civae_cli.options import (
    SETTINGS,
    ConfigOption,
    DeviceOption,
    JsonFlag,
    QuietFlag,
    SetOption,
    VerboseFlag,
)
from civae_cli.terminal import terminal


def train(
    config: ConfigOption = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="RUN", help="Folder of the run [default: runs/<name of the last config>]."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Prepared data; overrides data.path.",
            autocompletion=complete_data,
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="auto|must|never|PATH",
            help="auto: continue the run in --out if there is one. must: require one. never: refuse one. "
            "PATH: start from a checkpoint.",
        ),
    ] = "auto",
    stop_at: Annotated[
        int | None,
        typer.Option(
            "--stop-at", min=1, metavar="IMAGES", help="Save and stop when this many images have been seen."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check config, data and one batch, print sizes, and write nothing."),
    ] = False,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Train a model; run the same command again to continue where it stopped.

    Exit code 75 means that SIGTERM or SIGUSR1 stopped it, 130 that Ctrl-C did, both after saving.

    \b
    Examples:
      civae train --config configs/celeba-64-young.yml --set train.lr=5e-4 --out runs/young
      torchrun --nproc-per-node 4 -m civae_cli train --config configs/celeba-64-young.yml
    """
    from civae_core.config.load import load_config

    voice = terminal(quiet, verbose, json)
    overrides = {"data.path": data} if data is not None else {}
    resolved = load_config(config or [], set_ or [], overrides)
    run = out or Path("runs") / (config[-1].stem if config else "run")
    if dry_run:
        from civae_core.training.preview import preview

        found = preview(resolved, run, device=device, resume=resume, stop_at=stop_at)
        voice.result(found.to_dict(), found.describe())
        return

    from civae_core.training.loop import train as run_training

    result = run_training(resolved, run, device=device, resume=resume, stop_at=stop_at)
    voice.result(
        {"run": str(result.run), "images_seen": result.images_seen, "finished": result.finished},
        str(result.run),
    )
