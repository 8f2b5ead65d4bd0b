"""`civae train-scorer`: an independent network that judges counterfactuals."""

from pathlib import Path
from typing import Annotated

import typer

from civae_cli.completion import complete_data, complete_model
from civae_cli.options import (
    ConfigOption,
    DeviceOption,
    ImagesToLearnOption,
    JsonFlag,
    QuietFlag,
    VerboseFlag,
    within_63_bits,
)
from civae_cli.roles import DescendantOption, TreatmentOption, stated_roles
from civae_cli.terminal import terminal


def train_scorer(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Prepared data.", show_default=False, autocompletion=complete_data
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.", show_default=False)
    ],
    config: ConfigOption = None,
    treatment: TreatmentOption = None,
    descendant: DescendantOption = None,
    images: ImagesToLearnOption = None,
    seed: Annotated[
        int, typer.Option(min=0, callback=within_63_bits, help="Seed of weights, order and augmentation.")
    ] = 0,
    on: Annotated[
        list[Path] | None,
        typer.Option(
            "--on",
            metavar="RUN",
            help="Also test the scorer on this model's reconstructions; repeatable.",
            autocompletion=complete_model,
        ),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Train an independent scorer of all attributes, by which `evaluate` judges images.

    Each attribute is learned as if it were independent of all that the treatment does not cause, so that the scorer
    does not infer one attribute from another. Without a treatment and descendants, all attributes are treated alike.
    Prints the file's path; how well the scorer reads held-out images is printed to stderr and stored in the file.

    \b
    Example:
      civae train-scorer data/celeba-64 --treatment Young --descendant Gray_Hair --out scorer.safetensors
    """
    from dataclasses import replace

    from civae_core.data import PreparedData
    from civae_core.model.stored import load_model
    from civae_core.training.device import choose_device
    from civae_core.yardstick import save_yardstick, train_yardstick
    from civae_core.yardstick.fit import IMAGES
    from civae_core.yardstick.table import quality_table
    from civae_core.yardstick.trial import quality_on_reconstructions, require_same_format

    voice = terminal(quiet, verbose, json)
    chosen = choose_device(device)
    prepared = PreparedData.open(data)
    roles = stated_roles(prepared, config, treatment, descendant=descendant)
    models = {str(path): load_model(path, chosen) for path in on or []}
    for stored in models.values():
        require_same_format(stored, prepared)
    _require_writable(out)
    scorer = train_yardstick(prepared, roles, images=images or IMAGES, seed=seed, device=chosen)
    tried = {name: quality_on_reconstructions(scorer, stored, prepared) for name, stored in models.items()}
    card = replace(scorer.card, reconstructions=tried)
    save_yardstick(replace(scorer, card=card), out)
    voice.table(quality_table(card))
    voice.result(
        {
            "scorer": str(out),
            "fingerprint": scorer.fingerprint,
            "data": card.data,
            "roles": card.roles,
            "attributes": [attribute.name for attribute in card.attributes],
            "images": card.images,
            "seed": card.seed,
            "photos": card.photos,
            "blurred": card.blurred,
            "reconstructions": card.reconstructions,
        },
        str(out),
    )


def _require_writable(out: Path) -> None:
    """Check before the work that the file can be written and replaces nothing but an earlier scorer."""
    from civae_core.errors import DataError, UsageError
    from civae_core.files import make_folder
    from civae_core.yardstick.stored import read_yardstick_card

    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder", hint="name a file, such as scorer.safetensors")
    if out.exists():
        try:
            read_yardstick_card(out)
        except DataError as error:
            raise UsageError(
                f"--out {out}: exists and is not a scorer", hint="name another file, or delete this one"
            ) from error
    make_folder(out.parent)
