"""`civae evaluate`: how good are a model's reconstructions and counterfactuals?"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from civae_cli.completion import complete_data, complete_model
from civae_cli.given import refuse_idle, refuse_idle_scorer_images
from civae_cli.options import (
    ConfigOption,
    DeviceOption,
    ExtractorOption,
    JsonFlag,
    LimitOption,
    QuietFlag,
    ScorerImagesOption,
    ScorerOption,
    VerboseFlag,
    within_63_bits,
)
from civae_cli.roles import CovariateOption, DescendantOption, TreatmentOption, stated_roles
from civae_cli.terminal import Terminal, terminal
from civae_core.errors import UsageError

if TYPE_CHECKING:
    from civae_core.attributes import AttributeRoles
    from civae_core.data import PreparedData
    from civae_core.data.splits import Split
    from civae_core.evaluation.asked import Method

_ROLES = ("config", "treatment", "covariate", "descendant")
"""Parameters that state roles."""
_SCORING = ("images", "seed", "scorer", "scorer_images", "extractor", "report", "figures")
"""Parameters that say what is scored, how, and where it is reported."""
_CHOOSING = ("split", "limit")
"""Parameters that choose among the images of a split."""


def evaluate(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run, a checkpoint or a model.safetensors.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Prepared data [default: the data that the model was trained on].",
            autocompletion=complete_data,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="RUN2",
            help="Another run to compare with; repeatable.",
            autocompletion=complete_model,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="Folder of another program's counterfactuals, with counterfactuals.csv; alone, or beside a RUN.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            metavar="DIR",
            help="Only write the questions for another program to this folder: sources and counterfactuals.csv.",
        ),
    ] = None,
    config: ConfigOption = None,
    treatment: TreatmentOption = None,
    covariate: CovariateOption = None,
    descendant: DescendantOption = None,
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        typer.Option("--split", help="Split whose images are scored [default: test]."),
    ] = None,
    limit: LimitOption = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", callback=within_63_bits, help="Seed of the bootstrap and of the posterior draws."
        ),
    ] = 0,
    scorer: ScorerOption = "auto",
    scorer_images: ScorerImagesOption = None,
    extractor: ExtractorOption = "auto",
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML page to write [default: report.html in the run].")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Also write the page's pictures to this folder."),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Score models, or the images of other programs, on held-out data, against the truth where it is known.

    A treatment without a known truth is flipped or, if it is continuous, set to a high and then a low value (the 90 %
    and the 10 % quantile in training).

    Writes report.html and evaluation.json into the run; with --report, writes that page, and evaluation.json beside
    it. Copying the input is always one of the methods. Runs that differ only in their seed are summarised as one
    method.

    \b
    Examples:
      civae evaluate runs/young --against runs/young-cvae
      civae evaluate runs/young-0 --against runs/young-1 --against runs/young-2
      civae evaluate --data data/faces --treatment Young --questions theirs
      civae evaluate --data data/faces --treatment Young --images theirs
    """
    from civae_core.data import PreparedData
    from civae_core.evaluation.evaluate import default_data, evaluate_questions, require_comparable
    from civae_core.evaluation.foreign import answering, foreign_questions, open_foreign
    from civae_core.evaluation.instruments import choose_instruments
    from civae_core.evaluation.output import prepare_output, report_folder, write_evaluation
    from civae_core.evaluation.question import ask_split
    from civae_core.evaluation.table import evaluation_tables
    from civae_core.file_names import REPORT_PAGE
    from civae_core.model.stored import load_model
    from civae_core.overfitting import warn_if_overfit
    from civae_core.training.device import choose_device
    from civae_core.yardstick.fit import IMAGES

    voice = terminal(quiet, verbose, json)
    chosen = choose_device(device)
    paths = [*([run] if run else []), *(against or [])]
    _refuse_what_is_idle(context, paths, images, questions, scorer)
    models = [load_model(path, chosen) for path in paths]
    for path in paths:
        warn_if_overfit(path)
    methods: list[Method] = []
    if models:
        prepared = default_data(models[0]) if data is None else PreparedData.open(data)
        methods += require_comparable(models, prepared)
        roles = models[0].card.roles
    elif data is None:
        raise UsageError(
            "--data is not given", hint="name the prepared data that the questions are drawn from"
        )
    else:
        prepared = PreparedData.open(data)
        roles = stated_roles(prepared, config, treatment, covariate, descendant)
    if not roles.treatments:
        raise UsageError("no treatment is named", hint="name it with --treatment, or with --config")
    if questions is not None:
        _write_questions(voice, questions, prepared, roles, split, limit)
        return
    home = report_folder(paths[0]) if paths else images
    assert home is not None, "refused before"
    # Whatever may be rejected comes before the instruments, since a scorer may take minutes to train.
    if images is None:
        asked = ask_split(prepared, roles, split or "test", limit)
    else:
        foreign = open_foreign(images, prepared, [a.name for a in roles.treatments])
        asked = foreign_questions(foreign, prepared, roles)
        methods = [*answering(foreign, roles, prepared), *methods]
    page = report or home / REPORT_PAGE
    prepare_output(page, figures)
    instruments = choose_instruments(
        prepared, roles, chosen, scorer=scorer, scorer_images=scorer_images or IMAGES, extractor=extractor
    )
    found = evaluate_questions(
        asked,
        methods,
        prepared,
        roles,
        split=split or "test" if images is None else "listed",
        seed=seed,
        instruments=instruments,
    )
    numbers = write_evaluation(found, page, figures)
    for shown in evaluation_tables(found.numbers, shutil.get_terminal_size().columns):
        voice.table(shown)
    voice.say(f"wrote {page} and {numbers}")
    voice.result(found.numbers, str(numbers))


def _refuse_what_is_idle(
    context: typer.Context, paths: list[Path], images: Path | None, questions: Path | None, scorer: str
) -> None:
    """Refuse options that have no effect.

    Raises:
        UsageError: an option has no effect beside another, or nothing is named that could be scored.
    """
    if paths:
        refuse_idle(context, _ROLES, f"with {paths[0]}: the roles are those it was trained with")
    if questions is not None:
        hint = "write the questions first, then score the answers with --images"
        refuse_idle(context, _SCORING, "with --questions: nothing is scored", hint=hint)
    elif images is not None:
        refuse_idle(context, _CHOOSING, "with --images: its table lists what is scored")
    elif not paths:
        raise UsageError("nothing to score", hint="name a RUN, or --images DIR")
    refuse_idle_scorer_images(context, scorer)


def _write_questions(
    voice: Terminal,
    folder: Path,
    data: "PreparedData",
    roles: "AttributeRoles",
    split: "Split | None",
    limit: int | None,
) -> None:
    from civae_core.evaluation.foreign import write_split_questions

    table = write_split_questions(data, roles, folder, split=split or "test", limit=limit)
    voice.say(f"wrote {table}; fill in the answers and score them with --images {folder}")
    voice.result({"questions": str(table)}, str(table))
