"""civae config: write, show, check and convert configs."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from civae_cli.help import CivaeCommand
from civae_cli.options import ConfigOption, JsonFlag, QuietFlag, SetOption, VerboseFlag
from civae_cli.terminal import terminal

if TYPE_CHECKING:
    from civae_core.config import Config

app = typer.Typer(
    help="Write, show, check and convert configs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]...", help="YAML configs; later ones override earlier ones.", show_default=False
    ),
]


@app.command(cls=CivaeCommand)
def init(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> None:
    """Print a commented config to start from.

    Every key has its default value, except for the examples under `data`.

    \b
    Example:
      civae config init > train.yml
    """
    from civae_core.config import config_template

    template = config_template()
    terminal(quiet, verbose, json).result({"template": template}, template.rstrip("\n"))


@app.command(cls=CivaeCommand)
def show(
    files: FilesArgument = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Print the resolved config.

    Files override the defaults, later files override earlier ones, and --set overrides the files.

    \b
    Example:
      civae config show configs/celeba-64-young.yml --set loss.beta=2
    """
    from civae_core.config import dump_config

    out = terminal(quiet, verbose, json)
    _, resolved = _resolved(files, config, sets)
    out.result(resolved.model_dump(mode="json"), dump_config(resolved).rstrip("\n"))


@app.command(cls=CivaeCommand)
def validate(
    files: FilesArgument = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Check configs.

    Reports all problems at once, each with its line number, and exits with code 2 if there are any.

    \b
    Example:
      civae config validate train.yml
    """
    out = terminal(quiet, verbose, json)
    paths, _ = _resolved(files, config, sets)
    if out.as_json:
        out.json({"valid": True, "files": [str(path) for path in paths]})
    else:
        out.say("the config is valid")


@app.command(cls=CivaeCommand)
def schema(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> None:
    """Print the JSON schema, for editors.

    \b
    Example:
      civae config schema > civae.schema.json
    """
    from civae_core.config import config_schema

    described = config_schema()
    terminal(quiet, verbose, json).result(
        described, json_module.dumps(described, indent=2, ensure_ascii=False)
    )


@app.command(cls=CivaeCommand)
def convert(
    old: Annotated[Path, typer.Argument(metavar="OLD.yml", help="config.yml of the original project.")],
    images_per_epoch: Annotated[
        int, typer.Option(min=1, help="Number of training images in one of its epochs; by default CelebA's.")
    ] = 162_770,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Translate the original project's config.

    Comments in the new config say what was assumed and what was lost.

    \b
    Example:
      civae config convert config.yml > train.yml
    """
    from civae_core.config import convert_file

    converted = convert_file(old, images_per_epoch)
    result = {"config": converted.config.model_dump(mode="json"), "remarks": list(converted.remarks)}
    terminal(quiet, verbose, json).result(result, converted.text.rstrip("\n"))


def _resolved(
    files: list[Path] | None, config: list[Path] | None, sets: list[str] | None
) -> tuple[list[Path], "Config"]:
    """All named files, in the order in which later ones override earlier ones, and the resulting config."""
    from civae_core.config import load_config

    paths = [*(files or []), *(config or [])]
    return paths, load_config(paths, sets or [])
