"""`civae export`: a trained model in the formats of other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from civae_cli.completion import complete_model
from civae_cli.options import JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run, a checkpoint or a model.safetensors.",
            autocompletion=complete_model,
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="onnx|hf",
            help="onnx: graphs for ONNX Runtime. hf: weights, config and card for a model hub.",
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Output folder [default: model-onnx or model-hf beside the model file].",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="hf: heading of the card [default: the run's name].")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="NAME", help="hf: licence of the weights, such as mit.")
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option("--data-licence", metavar="TEXT", help="hf: licence of the training images.")
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Export a model for other programs.

    onnx: writes the encoder, decoder, prior, predictor and the whole counterfactual as graphs for any batch size,
    each compared with torch before it is kept. If they lie beside the model file, `civae counterfactual` and `civae
    sample` find and use them, and start in a fraction of the time.

    hf: writes model.safetensors, config.json and README.md, ready to be uploaded. README.md is a model card with
    data, roles, overlap, leaks and limits; its figures are those of the run's evaluation. Paths of this machine are
    left out.

    \b
    Examples:
      civae export runs/young
      civae export runs/young --format hf --licence cc-by-nc-4.0 --data-licence "CelebA: research only"
    """
    from civae_core.errors import UsageError
    from civae_core.overfitting import warn_if_overfit

    voice = terminal(quiet, verbose, json)
    for_hub = {"--title": title, "--licence": licence, "--data-licence": data_licence}
    if format == "onnx":
        for flag, value in for_hub.items():
            if value is not None:
                raise UsageError(f"{flag} {value}: has no effect with --format onnx", hint="use --format hf")
        from civae_core.export.onnx_files import export_onnx
        from civae_core.model.stored import load_model

        folder, card = export_onnx(load_model(run), out)
        differences = {name: entry.largest_difference for name, entry in card.graphs.items()}
        voice.say(
            f"{len(differences)} graphs, checked: no output differs from torch by more than "
            f"{max(differences.values()):.1e}"
        )
        facts: dict[str, Any] = {"format": format, "output": str(folder), "graphs": differences}
    elif format == "hf":
        from civae_core.export.hub import evaluation_of, export_hub
        from civae_core.model.stored import load_model

        stored = load_model(run)
        evaluation = evaluation_of(stored)
        folder = export_hub(
            stored,
            out,
            evaluation=evaluation,
            title=title,
            licence=licence or "other",
            data_licence=data_licence,
        )
        facts = {"format": format, "output": str(folder), "evaluated": evaluation is not None}
    else:
        raise UsageError(f"--format {format}: unknown format", hint="use onnx or hf")
    warn_if_overfit(run)
    voice.result(facts, str(folder))
