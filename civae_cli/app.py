"""The entry point of the command line. Importing it is cheap: a command imports what it needs when it runs."""

import gc
import os
import sys
from typing import Annotated

import typer

from civae_cli.bash import answers_bash
from civae_cli.commands import Commands
from civae_cli.streams import set_up_streams
from civae_core import __version__

app = typer.Typer(
    cls=Commands,
    name="civae",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"civae {__version__}")
        raise typer.Exit


@app.callback()
def civae(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Counterfactual images, fairly: how would this photo look if one attribute were different?

    Results go to stdout, everything else to stderr; --json prints the result as one JSON object. COMMAND --help shows
    examples. --install-completion sets up the shell to complete commands, runs, attributes and values.

    \b
    Examples:
      civae quickstart
      civae prepare-data CELEBA --out data/celeba-64
      civae train --config configs/celeba-64-young.yml --out runs/young
      civae counterfactual photo.jpg --model runs/young --treat Young=flip
    """


def main() -> None:
    """Run the command line (the console script `civae`).

    Results are UTF-8 whatever the locale; file names that are not valid UTF-8 pass through byte for byte.
    """
    set_up_streams()
    try:
        if not answers_bash(lambda: app(prog_name="civae")):
            app(prog_name="civae")
    except SystemExit as end:
        if is_one_of_several():
            end_at_once(end.code)
        raise
    finally:
        # Otherwise the interpreter searches all objects for cycles before it ends: a sixth of the time of `--help`.
        gc.freeze()


def is_one_of_several() -> bool:
    """Whether a launcher started this process together with others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def end_at_once(code: str | int | None) -> None:
    """End the process without the interpreter's usual shutdown.

    Threads through which processes exchanged gradients are still alive. In 2 of 28 trainings with two processes, one
    was aborted (SIGABRT) after it had saved everything, most likely because such a thread asked for the interpreter
    during its shutdown.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
