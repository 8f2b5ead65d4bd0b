"""Roles of attributes, as a command line or a config states them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from civae_cli.completion import complete_attribute
from civae_cli.options import ROLES

if TYPE_CHECKING:
    from civae_core.attributes import AttributeRoles
    from civae_core.data import PreparedData

TreatmentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--treatment",
        metavar="NAME",
        help="Attribute to intervene on, where no model or config names it; repeatable, overrides --config.",
        autocompletion=complete_attribute,
        rich_help_panel=ROLES,
    ),
]
CovariateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate",
        metavar="NAME",
        help="Attribute that the treatment does not change; repeatable.",
        autocompletion=complete_attribute,
        rich_help_panel=ROLES,
    ),
]
DescendantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--descendant",
        metavar="NAME",
        help="Attribute that the treatment itself may change; repeatable.",
        autocompletion=complete_attribute,
        rich_help_panel=ROLES,
    ),
]


def stated_roles(
    data: "PreparedData",
    config: list[Path] | None = None,
    treatment: list[str] | None = None,
    covariate: list[str] | None = None,
    descendant: list[str] | None = None,
) -> "AttributeRoles":
    """Roles of the table's attributes; without a config or a treatment, all but the covariates are held out.

    Raises:
        UsageError: an unknown name, a column that was left out, or a descendant without a treatment.
    """
    from civae_core.config.load import load_config
    from civae_core.errors import UsageError

    if not config and not treatment:
        if descendant:
            raise UsageError(
                f"--descendant {descendant[0]}: needs a treatment that it descends from",
                hint="name it with --treatment",
            )
        return data.assign([], covariate or [])
    flags = {
        "data.path": str(data.path),
        "data.treatment": treatment,
        "data.covariates": covariate,
        "data.descendants": descendant,
    }
    found = load_config(config or [], (), flags).data
    return data.assign(found.treatment, found.covariates, found.descendants)
