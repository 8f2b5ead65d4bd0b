"""Options that several commands share, each with one name and one meaning."""

from pathlib import Path
from typing import Annotated, Any

import typer

from civae_cli.completion import complete_input_value, complete_model, complete_treatment_value
from civae_cli.help import ASKING
from civae_core.errors import UsageError

ROLES, SETTINGS = "Roles of attributes", "Config"
JUDGING, COMPUTING, TELLING = "Judging", "Computing", "What is printed"
"""Headings of --help for options that several commands share."""

LARGEST_SEED = 2**63 - 1
"""The largest `train.seed`."""


def within_63_bits(seed: int) -> int:
    """Reject a --seed that a generator could not take, before the work and not after it.

    Raises:
        UsageError: the seed, or its negative, is larger than LARGEST_SEED.
    """
    if abs(seed) > LARGEST_SEED:
        raise UsageError(
            f"--seed {seed}: has more than 63 bits", hint=f"use a number up to {LARGEST_SEED}, such as 0"
        )
    return seed


JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object on stdout.", rich_help_panel=TELLING),
]
QuietFlag = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print only the result, warnings and errors.", rich_help_panel=TELLING
    ),
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more, including tracebacks.", rich_help_panel=TELLING)
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Device to compute on; one that is not available is refused.",
        rich_help_panel=COMPUTING,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="auto|torch|onnx",
        help="Compute with torch, or with the ONNX export beside the model; auto takes the export if there is one "
        "and no GPU.",
        rich_help_panel=COMPUTING,
    ),
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML config; repeatable, later files override earlier ones.",
        rich_help_panel=SETTINGS,
    ),
]


def _setting(example: str) -> Any:
    return typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"One setting, such as {example}; repeatable, overrides files.",
        rich_help_panel=SETTINGS,
    )


SetOption = Annotated[list[str] | None, _setting("train.lr=1e-4")]
BenchmarkSetOption = Annotated[list[str] | None, _setting("base.train.lr=1e-4")]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="RUN",
        help="A run, a checkpoint or a model.safetensors [default: $CIVAE_MODEL, else the newest in ./runs].",
        autocompletion=complete_model,
        rich_help_panel=ASKING,
    ),
]
TreatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--treat",
        metavar="NAME=VALUE",
        help="Intervention: NAME=VALUE, NAME=flip, or a sweep NAME=LOW:HIGH:COUNT; repeatable. Different names "
        "are set together, several values of one name one after the other.",
        autocompletion=complete_treatment_value,
        rich_help_panel=ASKING,
    ),
]
AttrOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attr",
        metavar="NAME=VALUE",
        help="Factual value of an attribute; repeatable.",
        autocompletion=complete_input_value,
        rich_help_panel=ASKING,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Score at most N images.", rich_help_panel=JUDGING),
]
ScorerOption = Annotated[
    str,
    typer.Option(
        "--scorer",
        metavar="auto|none|FILE",
        help="Independent network that judges the images. auto: trained once per data set and question, and cached. "
        "FILE: written by `civae train-scorer`.",
        rich_help_panel=JUDGING,
    ),
]


def _images_learned_from(flag: str) -> Any:
    return typer.Option(
        flag,
        min=1,
        metavar="N",
        help="Number of images shown to the scorer in training [default: 24000].",
        rich_help_panel=JUDGING,
    )


ScorerImagesOption = Annotated[int | None, _images_learned_from("--scorer-images")]
ImagesToLearnOption = Annotated[int | None, _images_learned_from("--images")]
ExtractorOption = Annotated[
    str,
    typer.Option(
        "--extractor",
        metavar="auto|scorer|inception|none|FILE",
        help="Features for FID and KID: the scorer's, Inception's, none, or those of a file; auto takes Inception's "
        "if its weights are available.",
        rich_help_panel=JUDGING,
    ),
]
