"""Every command that a document shows is run, on faces, photographs and a model small enough for seconds.

Commands that would take long are given less to do (`adapted`); of commands that another test runs at length, only
their presence there is checked.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from shown import DOCUMENTS, ROOT, civae_commands, is_whole
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.config import load_config
from civae_core.data import PreparedData
from civae_core.figures.pictures import to_picture
from civae_core.synthetic.celeba_tree import LABELS, write_celeba_tree

ELSEWHERE = {
    "quickstart": "tests/cli/test_quickstart_command.py",
    "benchmark": "tests/benchmark/test_benchmark_run.py",
    "train-scorer": "tests/cli/test_train_scorer.py",
    "serve": "tests/serve",
}
"""Commands that train several networks or never end, with the tests that run them instead."""
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
DATA = ("DATA", "data/faces", "data/celeba-64", "data/celeba-like", "data/photos", "quickstart/data")
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
    (place / "PATH").symlink_to(faces.path)
    write_celeba_tree(place / "tree", count=30, seed=0, overlap=1.0)
    add_columns(
        place / "tree" / LABELS, load_config([ROOT / "configs" / "celeba-64-young.yml"]).data.covariates
    )
    for name in CELEBA:
        (place / name).symlink_to(place / "tree")
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
    """The command with less to do; `train` and `prepare-data` write to a fresh folder, since theirs exists."""
    words = list(arguments)
    for name, value in SMALLER.items():
        words = [word.replace(name, value) for word in words]

    def put(flag: str, value: str) -> None:
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words.extend([flag, value])

    if words[0] == "train":
        put("--out", str(fresh))
        settings = tiny | {"data.covariates": ["Male"], "train.images": 64, "train.checkpoint_every": 64}
        for key, value in settings.items():
            words.extend(["--set", f"{key}={str(value).replace(chr(39), '')}"])
    elif words[0] == "prepare-data":
        put("--out", str(fresh))
        if words[1].startswith("synthetic"):
            put("--n", "30")
        if "--layout" not in words:
            put("--size", "32")
            put("--workers", "1")
    elif words[0] == "evaluate" and "--images" in words:
        put("--scorer", "none")
        put("--extractor", "none")
    elif words[0] == "evaluate" and "--questions" not in words:
        for flag, value in {"--scorer": "none", "--extractor": "none", "--limit": "8"}.items():
            put(flag, value)
    elif words[0] == "evaluate":
        put("--limit", "8")
    elif words[0] == "sample":
        put("--n", "2")
    elif words[0] == "effects":
        put("--limit", "8")
        put("--draws", "1")
    return words


DONE: set[tuple[str, ...]] = set()


def done(arguments: list[str]) -> tuple[str, ...]:
    """The command with a single name for each folder, since other names of it would repeat the work."""
    names = {
        **dict.fromkeys((*RUNS, "runs/young"), "RUN"),
        **dict.fromkeys(DATA, "DATA"),
        **dict.fromkeys(CELEBA, "CELEBA"),
    }
    return tuple(names.get(word, word) for word in arguments if not word.startswith("-"))


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
    failed: dict[str, str] = {}
    for number, arguments in enumerate(shown(document)):
        if arguments[0] in ELSEWHERE or (arguments[0] == "export" and "hf" not in arguments):
            continue  # the graphs of `export` take a minute; tests/export makes them once
        if done(arguments) in DONE:
            continue
        words = adapted(arguments, tmp_path / str(number), tiny_settings)
        result = CliRunner().invoke(app, words, input="photo.jpg\na.jpg\n")
        if result.exit_code != 0:
            failed[" ".join(words)] = result.stderr[-600:]
        DONE.add(done(arguments))
    assert failed == {}


def test_what_is_run_elsewhere_is() -> None:
    for command, path in ELSEWHERE.items():
        place = ROOT / path
        if command == "serve" and not place.exists():
            continue
        texts = [
            file.read_text(encoding="utf-8") for file in ([place] if place.is_file() else place.glob("*.py"))
        ]
        assert any(command in text for text in texts), command


def test_a_command_that_fails_is_noticed(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tiny_settings: dict[str, Any]
) -> None:
    monkeypatch.chdir(place)
    words = adapted(["evaluate", "runs/nobody"], tmp_path, tiny_settings)
    assert words == ["evaluate", "runs/nobody", "--scorer", "none", "--extractor", "none", "--limit", "8"]
    assert CliRunner().invoke(app, words).exit_code == 2
