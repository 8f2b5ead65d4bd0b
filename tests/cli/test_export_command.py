"""civae export, and counterfactual and sample through what it wrote: the same answers, and no torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data import PreparedData
from civae_core.export import onnx_files
from civae_core.export.graphs import functions_of

HEAVY = ("torch", "matplotlib", "torchmetrics", "pydantic", "rich", "email.message", "PIL.PdfImagePlugin")
WITHOUT = """
import json, sys
from civae_cli.app import app
try:
    app(sys.argv[2:])
except SystemExit as ended:
    assert ended.code in (0, None), ended.code
heavy = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
assert not heavy, f"{heavy} imported"
"""


def civae(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def without_torch(*arguments: object, nor: tuple[str, ...] = ()) -> str:
    """What a command says in a process of its own, which must not import torch, nor anything else that takes long."""
    command = [sys.executable, "-c", WITHOUT, json.dumps([*HEAVY, *nor]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def photo(faces: PreparedData, tmp_path: Path) -> Path:
    image_CHW = faces.images(faces.rows("test")[:1])[0]
    path = tmp_path / "me.png"
    Image.fromarray(image_CHW.permute(1, 2, 0).contiguous().numpy()).resize((50, 50)).save(path)
    return path


def records(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_a_counterfactual_needs_no_torch_and_is_the_same(exported: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("counterfactual", photo, "--model", exported, "--treat", "Young=0", "--treat", "Young=1")
    asked = (*arguments, "--engine", "onnx", "--out", tmp_path / "onnx")
    found = records(without_torch(*asked, nor=("PIL.ImageDraw",)))
    code, stdout, _ = civae(*arguments, "--engine", "torch", "--out", tmp_path / "torch")
    wanted = records(stdout)
    assert code == 0 and len(found) == len(wanted) == 2
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(pixels(one["output"]) - pixels(other["output"])).max() <= 1, "rounding only"
        assert {key: one[key] for key in one if key != "output"} == {
            key: other[key] for key in other if key != "output"
        }
    assert (pixels(found[0]["output"]) != pixels(found[1]["output"])).any()


@pytest.mark.parametrize("flag", ["--strip", "--native"])
def test_strips_and_native_photographs_need_no_torch(
    exported: Path, photo: Path, tmp_path: Path, flag: str
) -> None:
    arguments = ("counterfactual", photo, "--model", exported, "--treat", "Young=flip", flag)
    (found,) = records(without_torch(*arguments, "--out", tmp_path / "onnx"))
    code, stdout, _ = civae(*arguments, "--engine", "torch", "--out", tmp_path / "torch")
    assert code == 0
    assert np.abs(pixels(found["output"]) - pixels(records(stdout)[0]["output"])).max() <= 1


def test_samples_need_no_torch_and_are_the_same(exported: Path, tmp_path: Path) -> None:
    for arguments in (("--n", 3, "--treat", "Young=0"), ("--grid", "Young=0:1:3")):
        said = without_torch("sample", exported, *arguments, "--out", tmp_path / "onnx", "--engine", "onnx")
        code, _, _ = civae("sample", exported, *arguments, "--out", tmp_path / "torch", "--engine", "torch")
        assert code == 0
        for path in map(Path, said.splitlines()):
            assert np.abs(pixels(path) - pixels(tmp_path / "torch" / path.name)).max() <= 1
    assert len(list((tmp_path / "onnx").iterdir())) == 5


def test_prepared_images_go_through_it_too(exported: Path, faces: PreparedData, tmp_path: Path) -> None:
    arguments = ("counterfactual", f"{faces.path}#test[0:3]", "--model", exported, "--treat", "Young=flip")
    outcomes = [civae(*arguments, "--engine", e, "--out", tmp_path / e) for e in ("onnx", "torch")]
    assert [code for code, _, _ in outcomes] == [0, 0]
    for one, other in zip(*(records(stdout) for _, stdout, _ in outcomes), strict=True):
        assert np.abs(pixels(one["output"]) - pixels(other["output"])).max() <= 1


SERVED = """
import sys
from pathlib import Path
from civae_core.serve import server
from civae_core.serve.opening import open_studio
studio = open_studio([Path(sys.argv[1])], engine=sys.argv[2])  # asks the model once
print("torch" in sys.modules)
"""


@pytest.mark.parametrize(("engine", "imported"), [("onnx", "False"), ("torch", "True")])
def test_the_page_s_models_need_no_torch(exported: Path, engine: str, imported: str) -> None:
    pytest.importorskip("starlette")
    command = [sys.executable, "-c", SERVED, str(exported), engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, imported), done.stderr


def test_the_test_of_absence_notices_torch(exported: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("counterfactual", photo, "--model", exported, "--treat", "Young=0", "--out", tmp_path)
    with pytest.raises(AssertionError, match="torch"):
        without_torch(*arguments, "--engine", "torch")


def test_export_says_what_it_wrote_and_replaces_what_was_there(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    (run / "model-onnx" / "weights.bin").write_bytes(b"of yesterday")
    # One graph is enough to see the command work.
    monkeypatch.setattr(onnx_files, "functions_of", lambda *of: {"prior": functions_of(*of)["prior"]})
    code, stdout, stderr = civae("export", run, "--json")
    assert code == 0, stderr
    said = json.loads(stdout)
    assert (said["format"], said["output"]) == ("onnx", str(run / "model-onnx"))
    assert list(said["graphs"]) == ["prior"] and said["graphs"]["prior"] <= 1e-4
    assert "checked: no output differs from torch by more than" in stderr
    assert sorted(path.name for path in (run / "model-onnx").iterdir()) == [
        "card.json",
        "prior.onnx",
        "weights.bin",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "tflite"], 2, "--format tflite: unknown format"),
        (["--out", "{run}"], 2, "exists and is not an ONNX export"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    exported: Path, arguments: list[str], code: int, message: str
) -> None:
    found, stdout, stderr = civae("export", exported, *(a.format(run=exported) for a in arguments))
    assert (found, stdout) == (code, "") and message in stderr
