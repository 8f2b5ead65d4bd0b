"""Which options the command line gives, so that one without effect is refused instead of ignored."""

from collections.abc import Collection

import typer

from civae_core.errors import UsageError, flag_as_typed


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter is given on the command line."""
    origin = context.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def refuse_idle(context: typer.Context, names: Collection[str], why: str, *, hint: str | None = None) -> None:
    """Refuse options that have no effect here.

    Args:
        names: parameters of the command.
        why: what makes them idle, and the reason, as in `with --layout celeba: it applies when …`.
        hint: what to do; by default, to omit the option.

    Raises:
        UsageError: one of them is given.
    """
    for parameter in context.command.params:
        if parameter.name in names and is_given(context, parameter.name):
            flag = parameter.opts[0]
            typed = flag_as_typed(flag, context.params.get(parameter.name))
            raise UsageError(f"{typed} has no effect {why}", hint=hint or f"omit {flag}")


def refuse_idle_scorer_images(context: typer.Context, scorer: str) -> None:
    """Refuse `--scorer-images` if `--scorer` means that no scorer is trained.

    Raises:
        UsageError: it is given nevertheless.
    """
    if scorer != "auto":
        refuse_idle(context, ("scorer_images",), f"with --scorer {scorer}: no scorer is trained")
