"""`civae serve`: a web page on trained models."""

from pathlib import Path
from typing import Annotated

import typer

from civae_cli.completion import complete_model
from civae_cli.options import DeviceOption, EngineOption, JsonFlag, QuietFlag, VerboseFlag
from civae_cli.terminal import terminal

LISTENING = "Who may visit"


def serve(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]…",
            help="Runs, checkpoints, model.safetensors or ONNX exports; the page compares any two of them "
            "[default: $CIVAE_MODEL, else the newest in ./runs].",
            autocompletion=complete_model,
        ),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option("--examples", metavar="DATA#test[0:24]", help="Prepared images to offer as examples."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 lets other machines in.",
            rich_help_panel=LISTENING,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=LISTENING),
    ] = 8642,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Another host name under which visitors may open the page; repeatable.",
            rich_help_panel=LISTENING,
        ),
    ] = None,
    max_upload: Annotated[
        int,
        typer.Option(
            "--max-upload",
            metavar="MB",
            min=1,
            max=500,
            help="Largest file that may be uploaded.",
            rich_help_panel=LISTENING,
        ),
    ] = 30,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show trained models as a web page: a photo, sliders, and what changes.

    Prints the page's address and runs until Ctrl-C (exit code 130) or SIGTERM (0). Photographs are kept only in
    memory.

    \b
    Examples:
      civae serve runs/young
      civae serve runs/young runs/cvae --examples 'data/celeba-64#test[0:24]'
      civae serve runs/young --host 0.0.0.0 --port 8000
    """
    from dataclasses import replace

    from civae_core.errors import UsageError
    from civae_core.extras import install, missing

    if missing("serve"):
        raise UsageError(
            "the page cannot be shown: the extra `serve` is not installed", hint=install("serve")
        )
    from civae_core.model_paths import newest_run
    from civae_core.serve.app import make_app
    from civae_core.serve.guard import LOCAL
    from civae_core.serve.limits import Limits
    from civae_core.serve.opening import open_studio
    from civae_core.serve.server import is_everywhere, is_local, listen, run, url_of

    voice = terminal(quiet, verbose, json)
    limits = replace(Limits(), upload_bytes=max_upload * 2**20)
    if not runs:
        runs = [newest_run(missing="RUN is not given", hint="name a run, as in `civae serve runs/young`")]
        voice.say(f"model: {runs[0]}")
    listening = listen(host, port)
    studio = open_studio(runs, examples, engine=engine, device=device, limits=limits)
    url = url_of(host, listening)
    if not is_local(listening):
        voice.warn(
            f"--host {host}: anyone who can reach this machine can use the page, and photographs travel unencrypted"
        )
    app = make_app(studio, (*LOCAL, host, *(allow_host or ())), any_address=is_everywhere(listening))
    models = [model.name for model in studio.models]
    voice.result({"url": url, "models": models, "examples": len(studio.examples)}, url)
    voice.say(f"showing {', '.join(models)}; press Ctrl-C to stop")
    run(app, listening, limits)
