"""civae quickstart at its smallest: everything it leaves behind, and that a second call repeats no training."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from civae_cli.app import app

SMALLEST = ("--faces", "200", "--images", "64", "--size", "32", "--device", "cpu")


def quickstart(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["quickstart", "--out", str(out), *arguments], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder and the outcome of one whole quickstart."""
    out = tmp_path_factory.mktemp("quickstart") / "out"
    return out, quickstart(out, *SMALLEST)


def modified(out: Path) -> dict[Path, int]:
    """When each file of data and checkpoints was last written."""
    files = [*out.glob("data/*"), *out.glob("*/checkpoints/*/*")]
    return {file: file.stat().st_mtime_ns for file in files if file.is_file()}


def test_it_leaves_picture_page_and_numbers(first: tuple[Path, Result]) -> None:
    out, result = first
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out / 'report.html'}\n"
    with Image.open(out / "faces.png") as picture:
        assert picture.width > 4 * 128, "original, reconstruction, counterfactual, truth"
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Overlap for Young" in html and not re.search(r'(src|href)=(?!"data:)', html)
    numbers = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert set(numbers["methods"]) == {"copy", "cvae", "original", "ours", "truth"} and numbers["n"] == 20
    for name in ("copy", "cvae", "original", "ours"):
        assert set(numbers["methods"][name]["relative_effect_error"]) == {"mean", "lo", "hi"}
    assert sorted(path.name for path in out.iterdir()) == [
        "cvae", "data", "evaluation.json", "faces.png", "original", "ours", "report.html"
    ]  # fmt: skip


def test_it_says_what_it_does_and_shows_one_table(first: tuple[Path, Result]) -> None:
    out, result = first
    trained = ("2/5 training ours", "3/5 training cvae", "4/5 training original")
    for step in ("1/5 making 200 faces", *trained, "5/5 evaluating"):
        assert step in result.stderr
    assert f"picture: {out / 'faces.png'}" in result.stderr
    table = result.stderr[result.stderr.index("measure ") :]
    assert re.search(r"relative effect error +1\.00 +\d\.\d\d +\d\.\d\d +\d\.\d\d +0\.00 *\n", table)
    assert table.count("measure ") == 1


def test_a_second_call_trains_nothing_again(first: tuple[Path, Result]) -> None:
    out, _ = first
    before = modified(out)
    numbers = (out / "evaluation.json").read_bytes()
    assert any("ours" in file.parts for file in before)
    again = quickstart(out, *SMALLEST, "--json", "-q")
    assert again.exit_code == 0, again.stderr
    assert again.stderr == ""
    assert modified(out) == before
    assert (out / "evaluation.json").read_bytes() == numbers
    assert json.loads(again.stdout) == json.loads(numbers)


def test_another_number_of_faces_in_the_same_folder_is_refused(first: tuple[Path, Result]) -> None:
    out, _ = first
    before = modified(out)
    result = quickstart(out, "--faces", "300", *SMALLEST[2:])
    assert result.exit_code == 2 and result.stdout == ""
    assert f"{out / 'data'} already holds other prepared data" in result.stderr and "hint: " in result.stderr
    assert modified(out) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--size", "40"), 2, "--size 40: must be a multiple of 16 from 32 to 256"),
        (("--size", "16"), 2, "--size 16: must be a multiple of 16 from 32 to 256"),
        (("--device", "cuda:99"), 2, "--device cuda:99: this machine has"),
        (("--faces", "3"), 2, "--faces"),
    ],
)
def test_bad_options_are_refused_before_anything_is_drawn(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = quickstart(tmp_path / "out", *arguments)
    assert result.exit_code == code and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = quickstart(tmp_path / "file" / "out", *SMALLEST)
    assert result.exit_code == 1 and result.stdout == ""
    assert f"cannot write {tmp_path / 'file' / 'out'}" in result.stderr
