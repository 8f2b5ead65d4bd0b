"""What the documents promise: commands that parse, links that lead somewhere, and one test command for all."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from civae_cli.app import app
from civae_core.config import load_config

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Click's base class of parsing errors, wherever this version of Typer keeps it.
CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
ELLIPSIS = "…"
"""Stands in documents for further arguments; a command with it is checked as far as it goes."""


def shell_lines(text: str) -> list[str]:
    """The commands of fenced shell blocks, without prompts, continuation lines joined."""
    lines: list[str] = []
    for block in FENCED.findall(text):
        typed = block.replace("\\\n", " ").splitlines()
        prompts = [line[2:] for line in typed if line.startswith("$ ")]
        # A block with prompts shows output too, which is no command.
        lines += prompts or [line for line in typed if line.strip() and not line.startswith("#")]
    return lines


def civae_commands(text: str) -> list[list[str]]:
    """Arguments of every `civae …` in fenced shell blocks and in `code` that starts with it."""
    code = re.findall(r"`(civae [^`\n]+)`", text)
    found = []
    for line in shell_lines(text) + code:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in ("&&", "||", "|", ";", "&"):
                found.append(words)
                words = []
            else:
                words.append(word)
    return [arguments for words in found if (arguments := _of_civae(words)) is not None]


def _of_civae(words: list[str]) -> list[str] | None:
    """What follows civae's name, which environment variables or torchrun may precede."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words and Path(words[0]).name == "torchrun" and "civae_cli" in words:
        words = words[words.index("civae_cli") :]
        words[0] = "civae"
    if not words or Path(words[0]).name != "civae":
        return None
    redirections = [i for i, word in enumerate(words) if word.startswith((">", "<", "2>"))]
    return words[1 : redirections[0]] if redirections else words[1:]


def parse(arguments: list[str]) -> str | None:
    """Parses a command line with the real application, without running it; what is wrong with it, or None."""
    command, context = typer.main.get_command(app), None
    name = "civae"
    while hasattr(command, "commands"):
        context = command.context_class(command, parent=context, info_name=name)
        if not arguments or arguments[0] in (ELLIPSIS, "--help", "-h", "--version"):
            return None
        name, arguments = arguments[0], arguments[1:]
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    if "--help" in arguments:
        return None
    try:
        command.make_context(name, [word for word in arguments if word != ELLIPSIS], parent=context)
    except CLICK_ERROR as error:
        return f"{name}: {error.format_message()}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_shown_parses(document: Path) -> None:
    commands = civae_commands(document.read_text(encoding="utf-8"))
    wrong = {" ".join(arguments): problem for arguments in commands if (problem := parse(arguments))}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_config_shown_loads(document: Path) -> None:
    for arguments in civae_commands(document.read_text(encoding="utf-8")):
        given = list(pairwise(arguments))
        sets = [value for flag, value in given if flag == "--set"]
        for file in [value for flag, value in given if flag == "--config" and value.startswith("configs/")]:
            load_config([ROOT / file], sets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in local if not (document.parent / target).exists()]
    assert missing == []


def test_the_readme_sets_up_and_runs_the_main_job_in_one_line() -> None:
    lines = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    assert ["quickstart"] in civae_commands("```bash\n" + "\n".join(lines) + "\n```\n")
    (line,) = [line for line in lines if line.endswith("civae quickstart")]
    assert "venv" in line and "pip install" in line


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    lines = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()[-1]
    command = last.removeprefix("exec ")
    assert command in lines
    assert (ROOT / command).stat().st_mode & 0o111, "can be executed"


def test_what_every_document_says_is_free_of_placeholders() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert not re.search(r"@@|TODO|FIXME|TBD", text), document.name


SHOWN = """
Inline `civae evaluate RUN --against RUN2`, `civae config …`, `civae_core` and `civae`.

```console
$ CIVAE_MODEL=runs/a civae counterfactual \\
    a.jpg --treat Young=-1:3:7 | jq .output
{"output": "civae nonsense"}
$ torchrun --nproc-per-node 4 -m civae_cli train --config train.yml
```

```python
civae = "nonsense"
```
"""


def test_the_check_finds_commands() -> None:
    assert civae_commands(SHOWN) == [
        ["counterfactual", "a.jpg", "--treat", "Young=-1:3:7"],
        ["train", "--config", "train.yml"],
        ["evaluate", "RUN", "--against", "RUN2"],
        ["config", "…"],
    ]
    assert [parse(arguments) for arguments in civae_commands(SHOWN)] == [None] * 4


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("evaluat RUN", "no command 'evaluat'"),
        ("config shw", "no command 'shw'"),
        ("evaluate RUN --agianst RUN2", "--agianst"),
        ("train-scorer DATA", "--out"),
        ("evaluate RUN --split tset", "--split"),
        ("sample RUN --n many", "--n"),
    ],
)
def test_the_check_can_fail(line: str, problem: str) -> None:
    found = parse(line.split())
    assert found is not None and problem in found
