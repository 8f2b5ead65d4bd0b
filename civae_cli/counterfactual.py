"""`civae counterfactual`: how would these pictures have looked under another treatment?"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from civae_cli.given import is_given
from civae_cli.help import ASKING
from civae_cli.options import (
    AttrOption,
    DeviceOption,
    EngineOption,
    JsonFlag,
    ModelOption,
    QuietFlag,
    TreatOption,
    VerboseFlag,
)
from civae_cli.terminal import terminal


class Align(StrEnum):
    """Whether faces are looked for."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_TOLD = 3
"""Pictures of which the same is told one by one."""


def counterfactual(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMG…",
            help="Files, folders, patterns, - for a list on standard input, or prepared images: DATA#test[0:100].",
        ),
    ],
    treat: TreatOption = None,
    model: ModelOption = None,
    attr: AttrOption = None,
    attrs: Annotated[
        Path | None,
        typer.Option(
            "--attrs",
            metavar="TABLE",
            help="CSV, TSV or JSONL: file_name and factual attribute values.",
            rich_help_panel=ASKING,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            "--noise",
            min=0.0,
            max=1.0,
            help="How much of the photo's fine detail to re-apply.",
            rich_help_panel=ASKING,
        ),
    ] = 1.0,
    strength: Annotated[
        float,
        typer.Option(
            "--strength",
            min=0.0,
            max=1000.0,
            help="Factor of the effect; 1 is the model's estimate.",
            rich_help_panel=ASKING,
        ),
    ] = 1.0,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the pictures.")] = Path(
        "counterfactuals"
    ),
    strip: Annotated[
        bool, typer.Option("--strip", help="Join a picture's interventions into one labelled strip.")
    ] = False,
    native: Annotated[
        bool,
        typer.Option(
            "--native", help="Write photographs of their own size, the effect carried to their own pixels."
        ),
    ] = False,
    align: Annotated[
        Align,
        typer.Option(
            "--align",
            help="Bring faces to where CelebA has them. auto: of models trained on its portraits, where needed.",
        ),
    ] = Align.AUTO,
    face: Annotated[
        str,
        typer.Option(
            "--face", metavar="WHICH", help="Of several faces: largest, all, or a number from the left."
        ),
    ] = "largest",
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show pictures as they would have looked under another treatment.

    Everything that the treatment does not cause stays. Prints one JSON line per picture written; with --json one
    object that holds them all.

    \b
    Examples:
      civae counterfactual photo.jpg --model runs/young --treat Young=0
      civae counterfactual photos/ --treat Young=-1:3:7 --strip
      civae counterfactual photo.jpg --treat Young=flip --native
      civae counterfactual family.jpg --treat Young=0 --align always --face all
    """
    from civae_core.align.aligner import FACELESS, aligner_for, lacks_aligner
    from civae_core.assignments import interventions_on, parse_values
    from civae_core.attributes import beyond_training, with_care
    from civae_core.data.images import Preprocessing
    from civae_core.errors import DataError
    from civae_core.extras import install
    from civae_core.inference.edit import edit_pictures
    from civae_core.inference.engines import open_engine
    from civae_core.inference.labels import describe_unchanged, describe_unsure
    from civae_core.inference.output import EditWriter
    from civae_core.inference.pictures import Pictures
    from civae_core.model.familiar import HINT, describe_unfamiliar
    from civae_core.model_paths import newest_run

    voice = terminal(quiet, verbose, json)
    path = model or newest_run()
    if model is None:
        voice.say(f"model: {path}")
    opened = open_engine(path, engine, device)
    roles = opened.roles
    interventions = interventions_on(treat, roles.treatments)
    stated = parse_values(attr or [], [a.name for a in roles.inputs])
    for text in beyond_training(stated, roles.inputs):
        voice.warn(f"--attr {text}; judge with care")
    shape = Preprocessing.from_dict(opened.preprocessing)
    pictures = Pictures(
        images,
        opened.preprocessing,
        stdin=sys.stdin if "-" in images else (),
        table=attrs,
        attributes=[a.name for a in roles.inputs],
        aligner=aligner_for(shape, align.value, face),
    )
    if align is Align.AUTO and pictures.has_photos and lacks_aligner(shape):
        voice.say(f"photographs are taken as aligned portraits; to find faces in others: {install('align')}")
    for flag, wants_photos in (
        ("--native", native),
        ("--align always", align is Align.ALWAYS),
        (f"--face {face}", is_given(context, "face")),
    ):
        if wants_photos:
            pictures.require_photos(flag)
    for text in pictures.beyond_training(roles.inputs, stated):
        voice.warn(f"--attrs {text}; judge with care")
    writer = EditWriter(out, noise=noise, strength=strength, strip=strip, native=shape if native else None)

    # Records are kept for `--json` alone: of a folder with very many pictures they would take memory.
    records, failures, unsure, unchanged, faceless, unfamiliar, answered, written = [], [], 0, 0, [], [], 0, 0
    edited = edit_pictures(
        opened, pictures, interventions, stated=stated, noise=noise, strength=strength, changes=native
    )
    for found in edited:
        try:
            if isinstance(found, DataError):
                raise found
            answered += 1
            view = found.picture.view
            if view and view.of > 1 and face == "largest":
                voice.warn(
                    f"{found.picture.name}: the largest of {view.of} faces is taken; "
                    f"--face all, or --face 1 to {view.of} from the left, takes others"
                )
            faceless += [found.picture.name] if found.picture.faceless else []
            told = describe_unsure(found.picture.title, found.unsure, found.predicted)
            unsure += bool(told)
            same = describe_unchanged(
                found.picture.title, [edit.treat for edit in found.edits], found.factual, found.predicted
            )
            unchanged += bool(same)
            for text in [*(told if unsure <= _TOLD else ()), *(same if unchanged <= _TOLD else ())]:
                voice.warn(text)
            if found.unfamiliar is not None:
                unfamiliar.append((found.picture.title, found.unfamiliar))
            for record in writer.write(found):
                written += 1
                if json:
                    records.append(record)
                else:
                    voice.json(record)
        except DataError as error:
            failures.append(error)
            if len(pictures) > 1:
                voice.warn(f"skipped {error.message}")
    if json:
        voice.json({"results": records, "failed": [error.message for error in failures]})
    if faceless:
        more = f", and {len(faceless) - 1} more" if len(faceless) > 1 else ""
        voice.warn(f"{faceless[0]}{more}: {FACELESS}")
    if unsure > _TOLD:
        voice.warn(f"unsure of {unsure - _TOLD} more pictures; `unsure` in their records names what")
    if unchanged > _TOLD:
        voice.warn(f"nothing is changed in {unchanged - _TOLD} more pictures: predicted to be so already")
    if unsure:
        voice.say("hint: what you know, state with --attr NAME=VALUE or --attrs TABLE")
    if unfamiliar:
        voice.warn(describe_unfamiliar(unfamiliar, answered))
        voice.say(f"hint: {HINT}")
    if writer.left_range:
        names = sorted(writer.left_range)
        voice.warn(f"{', '.join(names)} set beyond what training saw; {with_care(names, roles.treatments)}")
    if failures:
        if len(pictures) == 1:
            raise failures[0]
        if not written:
            raise DataError(f"none of {len(pictures)} pictures could be used")
        raise DataError(
            f"{len(failures)} of {len(pictures)} pictures could not be used; the others are written"
        )
