"""What the documents promise: commands that parse, links that lead somewhere, and one test command for all."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from shown import DOCUMENTS, LINK, ROOT, civae_commands, parse, shell_lines

from civae_core import __version__
from civae_core.config import load_config


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_shown_parses(document: Path) -> None:
    commands = civae_commands(document.read_text(encoding="utf-8"))
    wrong = {" ".join(arguments): problem for arguments in commands if (problem := parse(arguments))}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_config_shown_loads(document: Path) -> None:
    for arguments in civae_commands(document.read_text(encoding="utf-8")):
        given = list(pairwise(arguments))
        sets = [value for flag, value in given if flag == "--set"]
        for file in [value for flag, value in given if flag == "--config" and value.startswith("configs/")]:
            load_config([ROOT / file], sets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
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


def test_extras_are_installed_from_the_folder_since_no_index_has_civae() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = {str(document): document.read_text(encoding="utf-8") for document in DOCUMENTS}
    assert [name for name, text in texts.items() if re.search(r"install '?civae\b", text)] == []
    named = {
        extra
        for text in texts.values()
        for found in re.findall(r"'\.\[([\w,]+)\]'", text)
        for extra in found.split(",")
    }
    assert named and named <= declared["optional-dependencies"].keys()


def test_the_citation_names_this_version_and_its_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert cited["version"] == __version__
    assert licence.startswith(f"{cited['license']} License")
    assert [author["name"] in licence for author in cited["authors"]] == [True]


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
        ("--install-completions", "no option"),
        ("train-scorer … --images many", "--images"),
    ],
)
def test_the_check_can_fail(line: str, problem: str) -> None:
    found = parse(line.split())
    assert found is not None and problem in found
