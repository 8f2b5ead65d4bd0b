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
    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            metavar="auto|none|FILE",
            help="Independent network that judges the images: trained once per data and question and cached, none, "
            "or a file of `civae train-scorer`.",
        ),
    ] = "auto",
    scorer_images: Annotated[
        int | None,
        typer.Option("--scorer-images", min=1, metavar="N", help="Images it learns from [default: 24000]."),
    ] = None,
    extractor: Annotated[
        str,
        typer.Option(
            "--extractor",
            metavar="scorer|inception|none|FILE",
            help="Features for FID and KID: the scorer's, Inception's, none, or those of a file.",
        ),
    ] = "scorer",
    report: Annotated[
        Path | None, typer.Option("--report", help="Page to write [default: report.html in the run].")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write the page's pictures there, too.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Score models on held-out images, against the truth where it is known.

    Writes evaluation.json and report.html into the run, or beside --report. Copying the input is always among the
    methods. Runs that differ in nothing but their seed are summarised as one method.

    \b
    Examples:
      civae evaluate runs/young --against runs/young-cvae
      civae evaluate runs/young-0 --against runs/young-1 --against runs/young-2
    """
    from civae_core.data import PreparedData
    from civae_core.evaluation.evaluate import default_data, require_comparable
    from civae_core.evaluation.evaluate import evaluate as run_evaluation
    from civae_core.evaluation.instruments import choose_instruments
    from civae_core.evaluation.output import report_folder, write_evaluation
    from civae_core.evaluation.table import evaluation_tables
    from civae_core.files import make_folder
    from civae_core.model.stored import load_model
    from civae_core.training.device import choose_device
    from civae_core.yardstick.fit import IMAGES

    voice = terminal(quiet, verbose, json)
    chosen = choose_device(device)
    models = [load_model(path, chosen) for path in [run, *(against or [])]]
    prepared = PreparedData.open(data) if data is not None else default_data(models[0])
    require_comparable(models, prepared)
    page = report or report_folder(run) / "report.html"
    make_folder(page.parent)  # before the work, since it may not be writable
    instruments = choose_instruments(
        prepared,
        models[0].card.roles,
        chosen,
        scorer=scorer,
        scorer_images=scorer_images or IMAGES,
        extractor=extractor,
    )
    found = run_evaluation(models, prepared, split=split, limit=limit, seed=seed, instruments=instruments)
    numbers = write_evaluation(found, page, figures)
    for table in evaluation_tables(found.numbers):
        voice.table(table)
    voice.say(f"wrote {page} and {numbers}")
    voice.result(found.numbers, str(numbers))
