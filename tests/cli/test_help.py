"""What `--help` promises for every command: an example that parses, options under headings, --json."""

import re
import shlex
from types import SimpleNamespace

import pytest
import typer
from shown import ROOT, examples, leaf_commands, parse, wrong_value
from typer.testing import CliRunner

from civae_cli.app import app
from civae_cli.help import CivaeCommand
from civae_core.benchmark.load import load_benchmark
from civae_core.config.load import load_config

COMMANDS = leaf_commands(typer.main.get_command(app))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_json_and_an_example_and_headings(names: tuple[str, ...]) -> None:
    command = COMMANDS[names]
    assert isinstance(command, CivaeCommand)
    assert "--json" in {flag for parameter in command.params for flag in parameter.opts}
    shown = CliRunner().invoke(app, [*names, "--help"]).output
    assert re.search(rf"Examples?:\n    (torchrun .*-m civae_cli|civae) {' '.join(names)}", shown)
    assert shown.index("What is printed:") > shown.index("Usage:")
    assert shown.rstrip().endswith("-h, --help     Show this message and exit.")


@pytest.mark.parametrize("names", [(), *COMMANDS], ids=lambda names: " ".join(names) or "civae")
def test_every_example_of_help_parses_as_it_would_be_typed(names: tuple[str, ...]) -> None:
    command = COMMANDS[names] if names else typer.main.get_command(app)
    found = examples(command)
    text = CliRunner().invoke(app, [*names, "--help"]).output
    lines = re.findall(r"^    (?:civae|\w+=\S+ civae|torchrun) .*$", text, re.M)
    assert len(found) == len(lines) > 0, "every line of an example is looked at"
    if names:
        assert all(tuple(words[: len(names)]) == names for words in found), "a command shows itself"
    wrong = {" ".join(words): problem for words in found if (problem := parse(words) or wrong_value(words))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("counterfactual a.jpg --treat Yuong=0", "did you mean Young"),
        ("counterfactual a.jpg --treat Young=0:1", "LOW:HIGH:COUNT"),
        ("sample RUN --attr Smiling=yes", "not a number"),
        ("sample RUN --grid Young=0:1:5,Male=flip", "one or two attributes"),
        ("sample RUN --seeds 3-", "not a seed"),
        ("effects RUN --by Young", "no such attribute"),
        ("effects RUN --data 'data/faces#tset'", "tset"),
        ("train --config configs/celeba-64-young.yml --set train.lrr=1", "train.lr"),
        ("config show configs/celeba-46-young.yml", "celeba-46-young.yml"),
        ("train-scorer DATA --descendant Grey_Hair", "no such attribute"),
    ],
)
def test_a_wrong_value_in_an_example_is_noticed(line: str, problem: str) -> None:
    found = wrong_value(shlex.split(line))
    assert found is not None and problem in found


def test_examples_are_found_behind_variables_and_torchrun() -> None:
    command = SimpleNamespace(
        help="Do.\n\n\b\nExamples:\n  A=b civae info RUN | jq .\n  torchrun -m civae_cli train\n\nEnd."
    )
    assert examples(command) == [["info", "RUN"], ["train"]]


def test_options_stand_once_and_under_their_heading() -> None:
    shown = CliRunner().invoke(app, ["counterfactual", "--help"]).output
    sections = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n(?=  ))+)", shown, re.M))
    assert list(sections)[:3] == ["Arguments", "What is asked", "Options"]
    assert "--treat" in sections["What is asked"] and "--device" in sections["Computing"]
    flags = [flag for parameter in COMMANDS["counterfactual",].params for flag in parameter.opts[:1]]
    for flag in flags:
        lines = [line for line in shown.splitlines() if re.match(rf"\s+(-\w, )?{re.escape(flag)}\b", line)]
        assert flag.startswith("-") <= (len(lines) == 1), flag


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("counterfactual", "[OPTIONS] IMG…"),
        ("serve", "[OPTIONS] [RUN…]"),
        ("evaluate", "[OPTIONS] [RUN]"),
        ("config show", "[OPTIONS] [FILE…]"),
        ("config convert", "[OPTIONS] OLD.yml"),
    ],
)
def test_usage_is_written_for_people(line: str, usage: str) -> None:
    shown = CliRunner().invoke(app, [*line.split(), "--help"]).output
    assert shown.splitlines()[0].endswith(f"{line} {usage}")
    name = usage.removeprefix("[OPTIONS] ")
    assert f"Arguments:\n  {name}  " in shown


@pytest.mark.parametrize("names", [("train",), ("config", "show"), ("benchmark",)], ids=" ".join)
def test_the_setting_that_help_names_is_one_of_the_command(names: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(app, [*names, "--help"]).output.split())
    (example,) = re.findall(r"One setting, such as (\S+);", shown)
    if names == ("benchmark",):
        load_benchmark(ROOT / "configs" / "levers.yml", [example])
    else:
        load_config([ROOT / "configs" / "celeba-64-young.yml"], [example])


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_no_option_shows_how_it_is_stored(names: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*names, "--help"]).output
    assert re.findall(r"<\w*(?:int|float|str|Path|path|list)\b.*?>", shown) == []


def test_commands_are_listed_whole_and_by_purpose() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = shown[shown.index("Start here:") :]
    assert "..." not in listed, "no sentence is cut"
    for names in COMMANDS:
        assert re.search(rf"^  {names[0]}\s", listed, re.M), names
    assert listed.index("Ask a trained model:") < listed.index("  counterfactual") < listed.index("Measure:")
