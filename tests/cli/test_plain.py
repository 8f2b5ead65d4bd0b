"""Values that are converted without pydantic equal what Typer makes of the same text; others are left to Typer."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from shown import leaf_commands

from civae_cli.app import app
from civae_cli.plain import UNSURE, taken, taking_plain_values
from civae_core.align.choice import Align

TEXTS = (
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "+1",
        "007",
        "2.5",
        "1e3",
        "1_000",
        "٣",
        "9" * 30,
        "nan",
        "inf",
        "True",
        "off",
    ),
    *("auto", "AUTO", "never", "Young=0", "a b", "é", "/", "no/such/file", "."),
)
ROOT = typer.main.get_command(app)
PARAMETERS = {
    (*names, parameter.name): (command, parameter)
    for names, command in {(): ROOT, **leaf_commands(ROOT)}.items()
    for parameter in command.get_params(typer.Context(command))
    if parameter.callback is None
}


def outcome(process: Any, command: Any, value: Any) -> object:
    """What a parameter makes of a value, as text that tells kinds apart, or its complaint."""
    try:
        return repr(process(typer.Context(command), value))
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("names", PARAMETERS, ids=" ".join)
def test_every_parameter_makes_of_a_text_what_typer_makes_of_it(names: tuple[str, ...]) -> None:
    command, parameter = PARAMETERS[names]

    def typers(ctx: Any, value: Any) -> Any:
        return type(parameter).process_value(parameter, ctx, value)

    several = parameter.multiple or parameter.nargs == -1
    values = [None, parameter.default, *((text,) if several else text for text in TEXTS)]
    for value in values:
        assert outcome(parameter.process_value, command, value) == outcome(typers, command, value), value


def limits(lowest: float | None = None, highest: float | None = None) -> SimpleNamespace:
    return SimpleNamespace(min=lowest, max=highest)


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        ("a", str, "a"),
        (["a", "b"], list[str], ["a", "b"]),
        (("a",), list[Path], [Path("a")]),
        ("12", int, 12),
        ("0.5", float, 0.5),
        (1.0, float, 1.0),
        ("never", Align, Align.NEVER),
        (Align.AUTO, Align, Align.AUTO),
    ],
)
def test_plain_values_are_taken(value: Any, kind: Any, found: Any) -> None:
    assert taken(value, kind, limits(0, 20)) == found


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("21", int),
        ("-1", float),
        ("1e3", float),
        (True, int),
        ("Never", Align),
        ("yes", bool),
        ("a", list[str]),
    ],
)
def test_what_is_not_plain_is_left_to_typer(value: Any, kind: Any) -> None:
    assert taken(value, kind, limits(0, 20)) is UNSURE


def test_a_file_that_may_not_be_read_is_left_to_typer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode == 0)
    assert taken(str(tmp_path), Path, limits()) is UNSURE


def test_parameters_of_another_version_are_left_alone() -> None:
    strange = SimpleNamespace(process_value=re.escape)
    assert taking_plain_values([strange]) == [strange]
    assert strange.process_value is re.escape


def test_a_parameter_that_wants_more_is_left_to_typer() -> None:
    broken = typer.Typer(rich_markup_mode=None, add_completion=False)

    @broken.command()
    def run(
        file: Path = typer.Option(..., exists=True), size: int = typer.Option(1, max=4, clamp=True)
    ) -> None:
        """Run."""

    parameters = typer.main.get_command(broken).params
    taking_plain_values(parameters)
    assert not any("process_value" in vars(parameter) for parameter in parameters)
