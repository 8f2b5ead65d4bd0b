"""`civae effects`: what does a treatment do on average, to everyone and by covariate?"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from civae_cli.completion import complete_covariate, complete_model
from civae_cli.given import refuse_idle
from civae_cli.help import ASKING
from civae_cli.options import DeviceOption, JsonFlag, QuietFlag, TreatOption, VerboseFlag
from civae_cli.terminal import terminal


def effects(
    context: typer.Context,
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run, a checkpoint or a model.safetensors.",
            autocompletion=complete_model,
        ),
    ],
    treat: TreatOption = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="NAME",
            autocompletion=complete_covariate,
            rich_help_panel=ASKING,
            help="Covariate that defines groups, a continuous one by halves; repeatable [default: all binary ones].",
        ),
    ] = None,
    source: Annotated[
        Literal["posterior", "prior", "both"],
        typer.Option(
            "--from",
            help="Estimate from the photographs (posterior), from subjects drawn from the prior, or from both.",
        ),
    ] = "both",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Prepared images: DATA#test, DATA#test[0:500], or DATA, which means its test split "
            "[default: the data that the model was trained on].",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use at most N images.")
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            "--draws", min=1, max=1000, metavar="N", help="Number of draws from the prior for each image."
        ),
    ] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws from the prior.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for sheets and arrays.")
    ] = Path("effects"),
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show the average effect of a treatment: mean images and effect maps, overall and by covariate.

    Only images that the intervention changes take part; NAME=flip compares the higher with the lower value in all of
    them. Writes a sheet and its arrays for each intervention, and prints one JSON line per group. Where the truth is
    known, the line also gives the error of the mean effect, relative to the true mean effect.

    \b
    Examples:
      civae effects runs/young --treat Young=0
      civae effects runs/young --treat Young=flip --by Male --from prior --data 'data/faces#test[0:500]'
    """
    from civae_core.assignments import interventions_on
    from civae_core.attributes import cautions
    from civae_core.data import PreparedData
    from civae_core.data.selection import Selection, parse_selection
    from civae_core.evaluation.evaluate import default_data, require_comparable
    from civae_core.files import make_folder
    from civae_core.model.stored import load_model
    from civae_core.overfitting import warn_if_overfit
    from civae_core.population.effects import population_effects
    from civae_core.population.output import assumptions, write_effects
    from civae_core.population.subjects import (
        covariates_by_name,
        groups_by,
        labelled_selection,
        subjects_of,
    )
    from civae_core.training.device import choose_device

    voice = terminal(quiet, verbose, json)
    if source == "posterior":
        refuse_idle(context, ("draws", "seed"), "with --from posterior: nothing is drawn from the prior")
    stored = load_model(run, choose_device(device))
    warn_if_overfit(run)
    roles = stored.card.roles
    interventions = interventions_on(treat, roles.treatments)
    covariates = (
        [a for a in roles.covariates if a.kind == "binary"] if by is None else covariates_by_name(by, roles)
    )
    selection = parse_selection(data) if data is not None else None
    if selection is None:
        prepared = default_data(stored) if data is None else PreparedData.open(Path(data))
        selection = Selection(prepared.path, "test")
    else:
        prepared = PreparedData.open(selection.path)
    require_comparable([stored], prepared)
    chosen = labelled_selection(prepared, roles, selection, limit)
    asked = [subjects_of(chosen, intervention, prepared, roles) for intervention in interventions]
    make_folder(out)  # before the work, since it may not be writable

    records = []
    for subjects in asked:
        stated = {name: value for name, value in subjects.do.items() if isinstance(value, float)}
        for text in cautions(stated, roles):
            voice.warn(f"--treat {text}")
        if subjects.unmoved:
            voice.say(
                f"{subjects.unmoved:,} of {len(chosen):,} images already have this treatment and are left out"
            )
        if 0 < subjects.with_truth < len(subjects):
            voice.warn(
                f"the truth is known for only {subjects.with_truth:,} of {len(subjects):,} images and is not compared"
            )
        groups = groups_by(subjects, covariates, roles)
        sources = ("posterior", "prior") if source == "both" else (source,)
        found = population_effects(stored, prepared, subjects, groups, sources, draws=draws, seed=seed)
        for record in write_effects(found, out, roles):
            records.append(record)
            if not json:
                voice.json(record)
    voice.say(assumptions(roles))
    if json:
        voice.json({"results": records, "assumptions": assumptions(roles)})
