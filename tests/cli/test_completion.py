"""What the shell fills in: paths, attributes and values, as bash hands the line over; light, and never failing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from civae_cli.bash import join_pieces
from civae_cli.completion import _names_in, complete_data, complete_model, complete_path
from civae_core.data import PreparedData
from civae_core.errors import DataError
from civae_core.model.stored import load_model
from civae_core.model_header import read_header, read_roles

PROBE = """
import os, sys
sys.argv = ["civae"]
from civae_cli.app import main
try:
    main()
finally:
    heavy = ("torch", "numpy", "pydantic", "matplotlib", "PIL", "safetensors", "rich")
    print("HEAVY", *[name for name in heavy if name in sys.modules], file=sys.stderr)
"""
"""The command in a fresh interpreter, and what it has imported by its end."""


@pytest.fixture
def place(trained: Path, faces: PreparedData, tmp_path: Path) -> Path:
    """A folder with a run, prepared data and a CelebA list where people have them."""
    model = trained / "checkpoints" / "last" / "model.safetensors"
    checkpoint = tmp_path / "runs" / "young" / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)
    shutil.copy(model, checkpoint)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "data" / "faces").mkdir(parents=True)
    shutil.copy(faces.path / "dataset.yml", tmp_path / "data" / "faces")
    (tmp_path / "celeba" / "Anno").mkdir(parents=True)
    (tmp_path / "celeba" / "Anno" / "list_attr_celeba.txt").write_text("1\nYoung Male\n000001.jpg 1 -1\n")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,Old,split\na.jpg,0,train\n")
    return tmp_path


def asked(place: Path, *words: str, cursor: int | None = None) -> tuple[list[str], set[str]]:
    """What bash is offered for the words of a line, and the heavy packages that were imported for it."""
    environment = os.environ | {
        "_CIVAE_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1 if cursor is None else cursor),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    environment.pop("CIVAE_MODEL", None)
    run = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    (heavy,) = [line for line in run.stderr.splitlines() if line.startswith("HEAVY")]
    return run.stdout.splitlines(), set(heavy.split()[1:])


def test_values_of_a_treatment_are_completed_without_a_heavy_import(place: Path) -> None:
    found = asked(place, "civae", "counterfactual", "a.jpg", "--treat", "Yo")
    assert found == (["Young=0", "Young=1", "Young=flip"], set()), "bash fills in what they share: Young="


def test_after_the_equals_sign_bash_gets_the_value_alone(place: Path) -> None:
    before = ("civae", "counterfactual", "a.jpg", "--model", "runs/young", "--treat", "Young", "=")
    assert asked(place, *before)[0] == ["0", "1", "flip"]
    assert asked(place, *before, "f")[0] == ["flip"]


def test_no_flip_is_offered_where_nobody_was_photographed(place: Path) -> None:
    assert asked(place, "civae", "sample", "runs/young", "--treat", "Young", "=")[0] == ["0", "1"]


def test_the_model_may_be_the_first_argument(place: Path) -> None:
    (place / "runs" / "young").rename(place / "mine")
    assert asked(place, "civae", "effects", "mine", "--by", "M")[0] == ["Male"]
    assert asked(place, "civae", "effects", "other", "--by", "M")[0] == []
    found = asked(place, "civae", "sample", "mine", "--attr", "Skin")[0]
    assert len(found) == 3 and all(text.startswith("Skin_Tone=") for text in found), "a continuous covariate"


def test_roles_are_completed_from_data_prepared_or_not(place: Path) -> None:
    for source, begun, names in (
        ("celeba", "M", ["Male"]),
        ("photos", "", ["Old"]),
        ("data/faces", "Gr", ["Gray_Hair"]),
    ):
        found, heavy = asked(place, "civae", "prepare-data", source, "--treatment", begun)
        assert (found, heavy) == (names, set()), source


def test_runs_and_data_are_found_by_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert complete_model("") == ["runs/young"], "not the notes beside it"
    assert complete_model("ru") == ["runs/young"], "the folder that it lies in is passed through"
    assert complete_model("./runs/yo") == ["./runs/young"]
    assert complete_model(f"{place}/runs/") == [f"{place}/runs/young"]
    assert complete_data("") == ["data/faces"]
    assert complete_path("") == ["data/faces", "runs/young"]
    assert complete_path("nowhere/") == []


@pytest.mark.parametrize(
    ("words", "cursor", "typed"),
    [
        ("civae --treat Young = 0", 4, ["civae", "--treat", "Young=0"]),
        ("civae --treat Young =", 3, ["civae", "--treat", "Young="]),
        (
            "civae --treat Young = -1 : 3 : 7 --model r",
            10,
            ["civae", "--treat", "Young=-1:3:7", "--model", "r"],
        ),
        ("civae a.jpg", 2, ["civae", "a.jpg", ""]),
        ("civae train --out runs/a", 2, ["civae", "train", "--out"]),
    ],
)
def test_lines_are_put_together_as_they_were_typed(words: str, cursor: int, typed: list[str]) -> None:
    assert join_pieces(words.split(), cursor) == typed


def test_what_is_no_model_completes_to_nothing(place: Path) -> None:
    file = place / "runs" / "young" / "checkpoints" / "last" / "model.safetensors"
    file.write_bytes(b"\xff" * 64)
    assert asked(place, "civae", "counterfactual", "a.jpg", "--treat", "Yo")[0] == []
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_header(file)


def test_the_header_says_what_the_model_says(trained: Path) -> None:
    stored = load_model(trained)
    assert read_roles(stored.path) == stored.card.roles.to_dict()
    assert set(read_header(stored.path)) - {"__metadata__"} == set(stored.model.state_dict())


def test_a_file_of_somebody_else_is_told(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DataError, match="not a civae model"):
        read_roles(file)


@pytest.mark.parametrize(
    "manifest",
    [
        "attributes: " + "[" * 50_000,
        "attributes: [{name: Old}, {name: 'x;reboot'}, {name: \"red\\e[31m\"}, {name: $HOME}]",
        "attributes:\n  - {name: Old}\nnotes: " + "x" * 2**23,
        "attributes:\n  - {name: Old}\nfiles: {}\n#" + "x" * 2**18,
        "a: &a [x, x]\nattributes: [*a, *a]",
    ],
    ids=["deep", "special", "large", "slow", "aliased"],
)
def test_no_manifest_breaks_or_commands_the_shell(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.yml").write_text(manifest)
    assert _names_in(tmp_path) == (["Old"] if "reboot" in manifest else [])


def test_no_header_of_a_table_commands_the_shell(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,Old,`reboot`,a b,Gray_Hair,Haar-Länge\n")
    assert _names_in(tmp_path) == ["Old", "Gray_Hair", "Haar-Länge"]
