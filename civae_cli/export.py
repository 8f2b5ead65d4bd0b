"""`civae export`: a trained model in the formats of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from civae_cli.options import JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, a checkpoint or a model.safetensors.")],
    format: Annotated[
        str,
        typer.Option("--format", "-f", metavar="onnx", help="What to write: onnx, graphs for ONNX Runtime."),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder [default: model-onnx beside the model file]."
        ),
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Write a model for other programs, checked against the original.

    onnx: encoder, decoder, prior and predictor, and the whole counterfactual, as graphs for any batch size. Beside
    the model file, `civae counterfactual` and `civae sample` find and use them, and start in a fraction of the time.

    \b
    Examples:
      civae export runs/young
      civae export runs/young --out young-onnx --json
    """
    from civae_core.errors import UsageError

    voice = terminal(quiet, verbose, json)
    if format != "onnx":
        raise UsageError(f"--format {format}: unknown format", hint="use onnx")
    from civae_core.export.onnx_files import export_onnx
    from civae_core.model.stored import load_model

    folder, card = export_onnx(load_model(run, "cpu"), out)
    largest = max(entry.largest_difference for entry in card.graphs.values())
    voice.say(f"{len(card.graphs)} graphs, checked: no output differs from torch by more than {largest:.1e}")
    voice.result(
        {
            "format": format,
            "output": str(folder),
            "model": str(card.model_file),
            "graphs": {name: entry.largest_difference for name, entry in card.graphs.items()},
        },
        str(folder),
    )
