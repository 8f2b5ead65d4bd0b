"""The command line's entry point. Importing it is light: a command imports what it needs when it runs."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from civae_cli import config
from civae_cli.benchmark import benchmark
from civae_cli.counterfactual import counterfactual
from civae_cli.doctor import doctor
from civae_cli.effects import effects
from civae_cli.errors import CivaeGroup
from civae_cli.evaluate import evaluate
from civae_cli.export import export
from civae_cli.info import info
from civae_cli.prepare_data import prepare_data
from civae_cli.quickstart import quickstart
from civae_cli.sample import sample
from civae_cli.train import train
from civae_cli.train_scorer import train_scorer
from civae_core import __version__

app = typer.Typer(
    cls=CivaeGroup,
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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Counterfactual images, fairly: how would this photo look if one attribute were different?"""


app.command("quickstart")(quickstart)
app.command("prepare-data")(prepare_data)
app.command("train")(train)
app.command("sample")(sample)
app.command("counterfactual")(counterfactual)
app.command("effects")(effects)
app.command("train-scorer")(train_scorer)
app.command("evaluate")(evaluate)
app.command("benchmark")(benchmark)
app.command("export")(export)
app.command("info")(info)
app.add_typer(config.app, name="config")
app.command("doctor")(doctor)


def main() -> None:
    """Runs the command line (the console script `civae`).

    Results are UTF-8 whatever the locale says, and file names that are not pass through byte for byte.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    app(prog_name="civae")
