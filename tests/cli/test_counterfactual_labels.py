"""civae counterfactual: the factual values that a user states, one by one or in a table."""

import json
from pathlib import Path

import pytest
from asking import civae, records

pytestmark = pytest.mark.usefixtures("sure")


def test_stated_values_win_and_are_not_called_predicted(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out")
    stated = ("--attr", "Male=1", "--attr", "Skin_Tone=0.25")
    code, stdout, _ = civae(photo_files / "0.png", *arguments, *stated)
    (record,) = records(stdout)
    assert code == 0
    assert (record["factual"]["Male"], record["factual"]["Skin_Tone"]) == (1.0, 0.25)
    assert list(record["predicted"]) == ["Young"]


def test_a_table_states_the_values_of_many_photos(trained: Path, photo_files: Path, tmp_path: Path) -> None:
    table = photo_files / "labels.csv"
    table.write_text("file_name,Male,Skin_Tone,Note\n0.png,-1,0.5,a\n1.png,1,,b\n")
    arguments = ("--model", trained, "--treat", "Young=0", "--out", tmp_path / "out", "--attrs", table)
    code, stdout, _ = civae(photo_files, *arguments)
    first, second, third = records(stdout)
    assert code == 0
    assert (first["factual"]["Male"], first["factual"]["Skin_Tone"]) == (0.0, 0.5), "-1 is read as 0"
    assert (second["factual"]["Male"], list(second["predicted"])) == (1.0, ["Young", "Skin_Tone"])
    assert list(third["predicted"]) == ["Young", "Male", "Skin_Tone"]
    _, stdout, _ = civae(photo_files, *arguments, "--attr", "Male=1")
    assert [record["factual"]["Male"] for record in records(stdout)] == [1.0, 1.0, 1.0], "--attr wins"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "file_name,Mail\n0.png,1\n",
            "none of its columns (Mail) is an attribute of the model",
            "Male, Skin_Tone",
        ),
        ("file_name,Male\nelsewhere.png,1\n", "names none of the pictures", "relative to the table"),
    ],
)
def test_a_table_that_says_nothing_about_the_pictures_is_refused(
    trained: Path, photo_files: Path, tmp_path: Path, text: str, message: str, hint: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    out = tmp_path / "out"
    arguments = ("--model", trained, "--treat", "Young=0", "--out", out, "--attrs", table)
    code, stdout, stderr = civae(photo_files, *arguments)
    assert (code, stdout) == (2, ""), stderr
    assert f"--attrs {table}: " in stderr and message in stderr and hint in stderr.partition("hint: ")[2]
    assert not out.exists()


def test_factual_values_beyond_training_are_warned_of(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    arguments = ("--model", trained, "--treat", "Young=flip", "--out", tmp_path / "out", "--attr", "Male=-1")
    code, _, stderr = civae(photo_files / "0.png", *arguments)
    assert code == 0
    assert stderr == "warning: --attr Male=-1 (training saw 0 to 1); interpret with care\n"


def test_a_table_s_values_beyond_training_are_warned_of(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    table = photo_files / "labels.csv"
    table.write_text("file_name,Male,Skin_Tone\n0.png,1,5\n1.png,1,7\n2.png,1,0.5\n")
    arguments = (
        "--model",
        trained,
        "--treat",
        "Young=flip",
        "--out",
        tmp_path / "out",
        "--attrs",
        table,
        "-q",
    )
    code, _, stderr = civae(photo_files, *arguments)
    assert code == 0
    assert stderr.startswith(f"warning: --attrs {photo_files / '0.png'}: Skin_Tone=5 (training saw 0.")
    assert stderr.endswith("), and 1 more; interpret with care\n") and stderr.count("\n") == 1
    assert civae(photo_files, *arguments, "--attr", "Skin_Tone=0.5")[2] == ""


def test_an_absurd_value_in_a_table_costs_only_its_picture(
    trained: Path, photo_files: Path, tmp_path: Path
) -> None:
    table = photo_files / "labels.csv"
    table.write_text("file_name,Male,Skin_Tone\n0.png,1,0.5\n1.png,1,-1e30\n2.png,1,0.7\n")
    arguments = ("--model", trained, "--attrs", table, "--out", tmp_path / "out", "-q")
    code, stdout, stderr = civae(
        photo_files, *arguments, "--treat", "Young=0", "--treat", "Young=1", "--json"
    )
    assert code == 3
    said = f"{photo_files / '1.png'}: the model gives no finite image under Young=0 with the factual "
    assert f"warning: skipped {said}" in stderr and "1 of 3 pictures could not be used" in stderr
    result = json.loads(stdout)
    assert [error[: len(said)] for error in result["failed"]] == [said] and "Skin_Tone=-1e+30" in stdout
    names = [Path(record["input"]).name for record in result["results"]]
    assert names == ["0.png", "0.png", "2.png", "2.png"]
    alone = civae(photo_files / "1.png", *arguments, "--treat", "Young=0")
    assert alone[0] == 3 and f"error: {said}" in alone[2]
    assert civae(photo_files, *arguments, "--treat", "Young=0", "--attr", "Skin_Tone=0.5")[0] == 0
    # What is asked of all is no fault of one photo, whatever its table says.
    table.write_text("file_name,Male,Skin_Tone\n0.png,1,5\n1.png,1,5\n2.png,1,5\n")
    code, _, stderr = civae(photo_files, *arguments, "--treat", "Young=1e30")
    assert (
        code == 2
        and f"error: {photo_files / '0.png'}: the model gives no finite image under Young=1e+30" in stderr
    )
