"""`civae sample`: images from the prior."""

from pathlib import Path
from typing import Annotated

import typer

from civae_cli.completion import complete_model, complete_number_of_treatment
from civae_cli.help import ASKING
from civae_cli.options import AttrOption, DeviceOption, EngineOption, JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal


def sample(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run, a checkpoint, a model.safetensors or an ONNX export.",
            autocompletion=complete_model,
        ),
    ],
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=1,
            max=10_000,
            help="Number of images, or sheets with --grid: seeds 0 to N−1, or those of --seeds [default: 64, or 1].",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="0-63", help="Seeds to use: numbers and ranges, such as 0-7,12."),
    ] = None,
    attr: AttrOption = None,
    treat: Annotated[
        list[str] | None,
        typer.Option(
            "--treat",
            metavar="NAME=VALUE",
            help="Intervention: sets a treatment of the same subjects; repeatable.",
            autocompletion=complete_number_of_treatment,
            rich_help_panel=ASKING,
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            "--grid",
            metavar="A=0:1:5,B=0:1:5",
            help="Vary one or two attributes, on one sheet per seed.",
            rich_help_panel=ASKING,
        ),
    ] = None,
    truncation: Annotated[
        float,
        typer.Option(
            "--truncation",
            metavar="PSI",
            min=0.0,
            max=1.0,
            help="Factor of the latent noise; below 1, people are more typical and differ less.",
        ),
    ] = 1.0,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the pictures.")] = Path(
        "samples"
    ),
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Draw images from the learned prior.

    Each seed draws a training subject. --attr chooses among the subjects, whose other attributes are kept; --treat
    (or --attr of a treatment) then sets the subject's treatment. So one seed is the same subject under any treatment,
    and what the treatment leaves alone stays, as in a counterfactual.
    --truncation 0.7 keeps to the more typical people (the truncation trick of generative models).

    \b
    Examples:
      civae sample runs/young --n 64 --attr Smiling=1
      civae sample runs/young --grid Young=0:1:5,Male=0:1:2 --seeds 3
    """
    from civae_core.assignments import parse_values
    from civae_core.attributes import cautions
    from civae_core.errors import UsageError
    from civae_core.inference.engines import open_engine
    from civae_core.inference.sheets import parse_grid, parse_seeds, write_grids, write_samples

    voice = terminal(quiet, verbose, json)
    count = n or (64 if grid is None else 1)
    numbers = parse_seeds(seeds) if seeds is not None else list(range(count))
    if n is not None and n != len(numbers):
        raise UsageError(
            f"--n {n}: --seeds {seeds} names {len(numbers)}, not {n}", hint="give only one of the two"
        )
    opened = open_engine(run, engine, device)
    roles = opened.roles
    stated = parse_values(treat or [], [a.name for a in roles.treatments], flag="--treat")
    factual = parse_values(attr or [], [a.name for a in roles.inputs])
    for name in stated.keys() & factual.keys():
        raise UsageError(f"--attr {name}: is already set by --treat", hint="set each attribute once")
    stated |= factual
    for text in cautions(stated, roles):
        voice.warn(text)
    if grid is not None:
        varied = parse_grid(grid, [a.name for a in roles.inputs])
        for name, values in varied.axes.items():
            if name in stated:
                raise UsageError(f"--grid {grid}: {name} is also set to one value", hint="set it only once")
            for value in sorted({min(values), max(values)}):
                for text in cautions({name: value}, roles):
                    voice.warn(f"--grid {text}")
        records = write_grids(opened, out, numbers, stated, varied, truncation)
    else:
        records = write_samples(opened, out, numbers, stated, truncation)
    if json:
        voice.json({"results": records})
    else:
        for record in records:
            voice.data(record["output"])
