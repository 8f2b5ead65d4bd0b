"""`civae evaluate`: how good are a model's reconstructions and counterfactuals?"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from civae_cli.options import DeviceOption, JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, a checkpoint or a model.safetensors.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared data [default: what the model was trained on].")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="RUN2", help="Another run to compare; repeatable."),
    ] = None,
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option("--split", help="Images to score.")
    ] = "test",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Score at most N images.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of bootstrap and posterior draws.")] = 0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Page to write [default: report.html in the run].")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Score models on held-out images, against the truth where it is known.

    Writes evaluation.json and report.html into the run, or beside --report. Copying the input is always among the
    methods.

    \b
    Example:
      civae evaluate runs/young --against runs/young-cvae
    """
    from civae_core.data import PreparedData
    from civae_core.evaluation.evaluate import default_data
    from civae_core.evaluation.evaluate import evaluate as run_evaluation
    from civae_core.evaluation.output import report_folder, write_evaluation
    from civae_core.evaluation.table import evaluation_tables
    from civae_core.files import make_folder
    from civae_core.model.stored import load_model
    from civae_core.training.device import choose_device

    voice = terminal(quiet, verbose, json)
    chosen = choose_device(device)
    models = [load_model(path, chosen) for path in [run, *(against or [])]]
    prepared = PreparedData.open(data) if data is not None else default_data(models[0])
    page = report or report_folder(run) / "report.html"
    make_folder(page.parent)  # before the work, since it may not be writable
    found = run_evaluation(models, prepared, split=split, limit=limit, seed=seed)
    numbers = write_evaluation(found, page)
    for table in evaluation_tables(found.numbers):
        voice.table(table)
    voice.say(f"wrote {page} and {numbers}")
    voice.result(found.numbers, str(numbers))
