"""`civae counterfactual`: how would these pictures have looked under another treatment?"""

import sys
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
from civae_cli.remarks import Remarks
from civae_cli.terminal import terminal
from civae_core.align.choice import Align


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
            help="CSV, TSV or JSONL table with a column file_name and factual attribute values.",
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
            help="Factor by which the effect is multiplied; 1 is the model's estimate.",
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
            "--native",
            help="Write photographs at their own size, with the effect carried to their own pixels.",
        ),
    ] = False,
    align: Annotated[
        Align,
        typer.Option(
            "--align",
            help="Find faces and align them as in CelebA. auto: where needed, for models of aligned portraits.",
        ),
    ] = Align.AUTO,
    face: Annotated[
        str,
        typer.Option(
            "--face",
            metavar="WHICH",
            help="Which of several faces to use: largest, all, or a number counted from the left.",
        ),
    ] = "largest",
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show pictures as they would have looked under another treatment.

    Everything that the treatment does not cause stays as it is. Prints one JSON line per picture written; with
    --json, one object that holds them all.

    \b
    Examples:
      civae counterfactual photo.jpg --model runs/young --treat Young=0
      civae counterfactual photos/ --treat Young=-1:3:7 --strip
      civae counterfactual photo.jpg --treat Young=flip --native
      civae counterfactual family.jpg --treat Young=0 --align always --face all
    """
    from civae_core.align.aligner import aligner_for, lacks_aligner
    from civae_core.assignments import interventions_on, parse_values
    from civae_core.attributes import cautions, with_care
    from civae_core.data.images import Preprocessing
    from civae_core.errors import DataError
    from civae_core.extras import install
    from civae_core.inference.edit import edit_pictures
    from civae_core.inference.engines import open_engine
    from civae_core.inference.output import EditWriter
    from civae_core.inference.pictures import Pictures
    from civae_core.model_paths import newest_run

    voice = terminal(quiet, verbose, json)
    path = model or newest_run()
    if model is None:
        voice.say(f"model: {path}")
    opened = open_engine(path, engine, device)
    roles = opened.roles
    interventions = interventions_on(treat, roles.treatments)
    stated = parse_values(attr or [], [a.name for a in roles.inputs])
    for text in cautions(stated, roles):
        voice.warn(f"--attr {text}")
    shape = Preprocessing.from_dict(opened.preprocessing)
    pictures = Pictures(
        images,
        opened.preprocessing,
        stdin=sys.stdin if "-" in images else (),
        table=attrs,
        attributes=roles.inputs,
        aligner=aligner_for(shape, align, face),
    )
    if align is Align.AUTO and pictures.has_photos and lacks_aligner(shape):
        voice.say(
            f"photographs are assumed to be aligned portraits; to find faces in others: {install('align')}"
        )
    for flag, wants_photos in (
        ("--native", native),
        ("--align always", align is Align.ALWAYS),
        (f"--face {face}", is_given(context, "face")),
    ):
        if wants_photos:
            pictures.require_photos(flag)
    for name, text in pictures.beyond_training(roles.inputs, stated).items():
        voice.warn(f"--attrs {text}; {with_care([name], roles.treatments)}")
    writer = EditWriter(
        out,
        noise=noise,
        strength=strength,
        strip=strip,
        native=shape if native else None,
        treatments=roles.treatments,
    )

    # Records are kept only for `--json`: for a folder with very many pictures they would take much memory.
    records: list[dict[str, object]] = []
    written, remarks = 0, Remarks(voice, len(pictures), largest=face == "largest")
    edited = edit_pictures(
        opened, pictures, interventions, stated=stated, noise=noise, strength=strength, changes=native
    )
    for found in edited:
        try:
            if isinstance(found, DataError):
                raise found
            remarks.answer(found)
            for record in writer.write(found):
                written += 1
                if json:
                    records.append(record)
                else:
                    voice.json(record)
        except DataError as error:
            remarks.failure(error)
    if json:
        voice.json({"results": records, "failed": [error.message for error in remarks.failures]})
    remarks.sum_up()
    if writer.left_range:
        names = sorted(writer.left_range)
        voice.warn(f"{', '.join(names)} set beyond what training saw; {with_care(names, roles.treatments)}")
    remarks.raise_failures(written)
