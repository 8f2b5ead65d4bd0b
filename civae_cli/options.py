"""Options that several commands share, each with one name and one meaning."""

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
VerboseFlag = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, tracebacks included.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Where to compute; a device that is not there is refused.",
    ),
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML config; repeatable, later files win."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, such as train.lr=1e-4; repeatable, wins over files."
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="RUN",
        help="A run, a checkpoint or a model.safetensors [default: $CIVAE_MODEL, else the newest in ./runs].",
    ),
]
TreatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--treat",
        metavar="NAME=VALUE",
        help="Intervention: NAME=VALUE, NAME=flip, or a sweep NAME=LOW:HIGH:COUNT; repeatable. Different names "
        "are set together, several values of one name one after the other.",
    ),
]
AttrOption = Annotated[
    list[str] | None,
    typer.Option("--attr", metavar="NAME=VALUE", help="Factual value of an attribute; repeatable."),
]
