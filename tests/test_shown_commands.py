"""Every command that a document shows is run, on faces, photographs and a model small enough for seconds.

Commands that would take long are given less to do (`adapted`); of commands that another test runs at length, only
their presence there is checked.
"""

import csv
import inspect
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from invoked import commands_invoked
from shown import DOCUMENTS, ROOT, civae_commands, is_whole
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.attributes import AttributeRoles
from civae_core.config import load_config
from civae_core.data import PreparedData
from civae_core.evaluation.foreign import write_split_questions
from civae_core.evaluation.foreign_table import TABLE
from civae_core.figures.pictures import to_picture
from civae_core.synthetic.celeba_tree import LABELS, write_celeba_tree

ELSEWHERE = {
    "quickstart": "tests/cli/test_quickstart_command.py",
    "benchmark": "tests/benchmark/test_benchmark_run.py",
    "train-scorer": "tests/cli/test_train_scorer.py",
    "serve": "tests/serve/test_serving.py",
    "export": "tests/cli/test_export_command.py",
}
"""Commands that train several networks, trace them or never end, with the tests that run them instead."""
CELEBA_CONFIG = "configs/celeba-64-young.yml"
LESS = {
    "prepare-data": {"--workers": "1"},
    "evaluate": {"--scorer": "none", "--extractor": "none", "--limit": "8"},
    "sample": {"--n": "2"},
    "effects": {"--limit": "8", "--draws": "1"},
}
"""Options that give a command less to do. What a document shows is replaced by a smaller number only."""
IDLE = {"--images": ["--limit"], "--questions": ["--scorer", "--extractor"], "--layout": ["--workers"]}
"""Those that are refused beside another option."""
SMALLER = {"Smiling=1": "Male=1", "[0:100]": "[0:10]", "[0:4]": "[0:2]", "[3:6]": "[3:5]"}
"""Replacements for what the small model and data lack."""
RUNS = (
    "RUN",
    "RUN2",
    "runs/mine",
    "runs/photos",
    "runs/a0",
    "runs/a1",
    "runs/a2",
    "runs/tutorial",
    "quickstart/ours",
)
DATA = ("DATA", "PATH", "data/faces", "data/celeba-64", "data/celeba-like", "data/photos", "quickstart/data")
CELEBA = ("CELEBA", "SOURCE", "celeba", "celeba-like")
ORIGINAL = """\
norm_type: bn
nepoch: 2
image_size: 64
latent_channels: 64
lr: 1.0e-4
kl_scale: 1.0
treatment: Young
"""
"""A config of the original project."""


@pytest.fixture(scope="module")
def place(trained: Path, faces: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that contains everything that documents name."""
    place = tmp_path_factory.mktemp("shown")
    for parent in ("runs", "data", "quickstart", "photos/a"):
        (place / parent).mkdir(parents=True)
    shutil.copytree(trained, place / "runs" / "young")
    for name in RUNS:
        (place / name).symlink_to(place / "runs" / "young")
    for name in DATA:
        (place / name).symlink_to(faces.path)
    (place / "DIR").symlink_to(place / "runs" / "young" / "checkpoints" / "last")
    write_celeba_tree(place / "tree", count=30, seed=0, overlap=1.0)
    roles = load_config([ROOT / CELEBA_CONFIG]).data
    add_columns(place / "tree" / LABELS, [*roles.covariates, *roles.descendants])
    for name in CELEBA:
        (place / name).symlink_to(place / "tree")
    small = ["--size", "32", "--workers", "1"]
    made = ["prepare-data", str(place / "tree"), "--out", str(place / "data" / "tree"), *small]
    assert CliRunner().invoke(app, made).exit_code == 0
    write_answers(place / "theirs", faces)
    image = faces.images(torch.tensor([0]))[0]
    for name in ("photo.jpg", "a.jpg", "photos/0.jpg", "photos/a/1.jpg", "photos/a/2.jpg"):
        to_picture(image).save(place / name)
    (place / "photos" / "metadata.csv").write_text(
        "file_name,Young,Male\n0.jpg,0,0\na/1.jpg,1,0\na/2.jpg,0,1\n"
    )
    (place / "configs").symlink_to(ROOT / "configs")
    for name in ("train.yml", "FILE", "tutorial.yml"):
        (place / name).write_text("data:\n  path: data/faces\n  treatment: Young\n")
    for name in ("old.yml", "config.yml"):
        (place / name).write_text(ORIGINAL)
    return place


def write_answers(folder: Path, data: PreparedData) -> None:
    """Questions about eight faces, and the answers of a program that changes nothing."""
    roles = AttributeRoles.assign(data.attributes, ["Young"], ["Male"], ["Gray_Hair"])
    write_split_questions(data, roles, folder, split="test", limit=8)
    with (folder / TABLE).open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            (folder / row["file_name"]).parent.mkdir(exist_ok=True)
            shutil.copy(folder / row["source_image"], folder / row["file_name"])


def add_columns(table: Path, names: list[str]) -> None:
    """Give CelebA's attribute list the columns that it lacks, with made-up labels."""
    count, header, *rows = table.read_text(encoding="utf-8").splitlines()
    more = [name for name in names if name not in header.split()]
    lines = [f"{header} {' '.join(more)}"]
    for number, row in enumerate(rows):
        labels = ("1" if number >> place & 1 else "-1" for place in range(len(more)))
        lines.append(f"{row} {' '.join(labels)}")
    table.write_text("\n".join([count, *lines]) + "\n", encoding="utf-8")


def adapted(arguments: list[str], fresh: Path, tiny: dict[str, Any]) -> list[str]:
    """The command with less to do, and otherwise as it is shown.

    What writes to a folder that must be new is given another, since the document's exists; the config for CelebA is
    given data that have its attributes.
    """
    words = list(arguments)
    for name, value in SMALLER.items():
        words = [word.replace(name, value) for word in words]

    def put(flag: str, value: str) -> None:
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words.extend([flag, value])

    command = words[0]
    for flag, value in LESS.get(command, {}).items():
        is_refused = any(flag in idle for beside, idle in IDLE.items() if beside in words)
        if not is_refused and (value.isdigit() or flag not in words):
            put(flag, value)
    if command in ("train", "prepare-data"):
        put("--out", str(fresh))
    if "--questions" in words:
        put("--questions", str(fresh))
    if command == "prepare-data" and words[1].startswith("synthetic"):
        put("--n", "30")
    if command == "train":
        if CELEBA_CONFIG in words:
            put("--data", "data/tree")
        words.extend(smaller_settings(words, tiny))
    return words


def smaller_settings(words: list[str], tiny: dict[str, Any]) -> list[str]:
    """Settings of a small network and a short training, except those that the command itself sets."""
    stated = {word.split("=")[0] for word in words} - {"train.images"}
    settings = tiny | {"train.images": 64, "train.checkpoint_every": 64}
    return [
        word
        for key, value in settings.items()
        if not key.startswith("data.") and key not in stated
        for word in ("--set", f"{key}={value}".replace("'", ""))
    ]


DONE: set[tuple[str, ...]] = set()


def done(arguments: list[str]) -> tuple[str, ...]:
    """The command with a single name for each folder, since other names of it would repeat the work."""
    names = {
        **dict.fromkeys((*RUNS, "runs/young"), "RUN"),
        **dict.fromkeys(DATA, "DATA"),
        **dict.fromkeys(CELEBA, "CELEBA"),
    }
    return tuple(names.get(word, word) for word in arguments)


def shown(document: Path) -> list[list[str]]:
    """The document's commands that can be run, each once."""
    found = [a for a in civae_commands(document.read_text(encoding="utf-8")) if is_whole(a)]
    return [list(words) for words in dict.fromkeys(map(tuple, found)) if not words[0].startswith("-")]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if shown(d)], ids=lambda path: path.name)
def test_every_command_shown_runs(
    document: Path,
    place: Path,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("CIVAE_MODEL", "runs/young")
    assert failures(shown(document), tmp_path, tiny_settings) == {}


def failures(commands: Sequence[list[str]], fresh: Path, tiny: dict[str, Any]) -> dict[str, str]:
    """Run those commands that never went well before; what those said that failed now."""
    failed: dict[str, str] = {}
    for number, arguments in enumerate(commands):
        traces_nothing = arguments[0] == "export" and "hf" in arguments
        if (arguments[0] in ELSEWHERE and not traces_nothing) or done(arguments) in DONE:
            continue
        words = adapted(arguments, fresh / str(number), tiny)
        result = CliRunner().invoke(app, words, input="photo.jpg\na.jpg\n")
        if result.exit_code == 0:
            DONE.add(done(arguments))
        else:
            failed[" ".join(words)] = result.stderr[-600:]
    return failed


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_run_elsewhere_is(command: str) -> None:
    assert command in commands_invoked((ROOT / ELSEWHERE[command]).read_text(encoding="utf-8"))


def test_a_command_that_is_only_named_is_not_taken_for_one_that_is_run() -> None:
    named = """
    'CliRunner().invoke(app, ["serve"])'
    # CliRunner().invoke(app, ["export"])
    LISTED = ["train", "serve"]
    given = ["evaluate", run]
    CliRunner().invoke(app, ["info", "benchmark"])
    CliRunner().invoke(app, given)
    civae("sample", run)
    """
    assert commands_invoked(inspect.cleandoc(named)) == {"info", "evaluate", "sample"}


def test_commands_that_differ_in_a_flag_are_both_run() -> None:
    assert done(["info", "RUN", "--json"]) == done(["info", "runs/young", "--json"])
    assert done(["info", "RUN", "--json"]) != done(["info", "RUN"])


def test_a_command_is_run_as_it_is_shown(tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    roles = ["train", "--dry-run", "--set", "data.treatment=Male", "--set", "train.batch_size=16"]
    words = adapted(roles, tmp_path, tiny_settings)
    assert words[:6] == roles
    assert not [word for word in words[6:] if word.startswith(("data.", "train.batch_size="))]
    size = ["prepare-data", "photos", "--size", "64", "--out"]
    assert adapted([*size, "data/photos"], tmp_path, {}) == [*size, str(tmp_path), "--workers", "1"]
    scorer = ["evaluate", "RUN", "--scorer", "FILE", "--extractor", "none", "--limit"]
    assert adapted([*scorer, "500"], tmp_path, {}) == [*scorer, "8"]


def test_a_command_that_fails_is_noticed_in_every_document(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tiny_settings: dict[str, Any]
) -> None:
    monkeypatch.chdir(place)
    words = "evaluate runs/nobody --scorer none --extractor none --limit 8"
    for _ in ("README.md", "docs/evaluate.md"):
        failed = failures([["evaluate", "runs/nobody"]], tmp_path, tiny_settings)
        assert list(failed) == [words] and "runs/nobody" in failed[words]
