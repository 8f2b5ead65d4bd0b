"""civae prepare-data: results on stdout, and each bad input with its message, hint and exit code."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data import PreparedData


def civae(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["prepare-data", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures with a table; one column per kind, no splits of their own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["file_name,split,Male,Age"]
    for number in range(10):
        values = np.full((12, 10, 3), number * 20, np.uint8)
        Image.fromarray(values).save(folder / f"{number}.jpg")
        rows.append(f"{number}.jpg,{('train', 'valid', 'test')[number % 3]},{number % 2},{number}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_folder_is_the_result(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    code, stdout, stderr = civae(photos, "--out", out, "--size", 16, "--workers", 1)
    assert code == 0 and stdout == f"{out}\n"
    assert "10 images (train 4, valid 3, test 3)" in stderr and "report.html" in stderr
    assert PreparedData.open(out).images(PreparedData.open(out).rows("train")).shape == (4, 3, 16, 16)


def test_a_folder_whose_name_is_not_utf8_is_prepared_too(photos: Path, tmp_path: Path) -> None:
    odd = photos.rename(tmp_path / os.fsdecode(b"photos-\xe9"))
    arguments = (odd, "--out", tmp_path / "data", "--size", 16, "--workers", 1, "--json")
    code, stdout, stderr = civae(*arguments)
    assert code == 0, stderr
    assert json.loads(stdout)["name"] == odd.name == PreparedData.open(tmp_path / "data").name
    assert json.loads(civae(*arguments)[1])["fresh"] is False


def test_json_and_a_second_run(photos: Path, tmp_path: Path) -> None:
    arguments = (photos, "--out", tmp_path / "data", "--size", 16, "--grey", "--json", "-q", "--workers", 1)
    code, stdout, stderr = civae(*arguments)
    first = json.loads(stdout)
    assert code == 0 and stderr == "" and stdout.count("\n") == 1
    assert first["images"] == 10 and first["channels"] == 1 and first["fresh"] is True
    assert first["attributes"] == ["Male", "Age"] and first["rejected"] == 0
    code, stdout, _ = civae(*arguments)
    assert json.loads(stdout) == {**first, "fresh": False}


def test_synthetic_faces(tmp_path: Path) -> None:
    arguments = ("--n", 20, "--size", 32, "--truth", "Young=flip", "--json", "--workers", 1)
    code, stdout, _ = civae("synthetic:faces", "--out", tmp_path / "faces", *arguments)
    assert code == 0 and json.loads(stdout)["truth"] == ["Young=flip"]
    assert json.loads((tmp_path / "faces" / "report.json").read_text())["overlap"][0]["treatment"] == "Young"


def test_a_celeba_tree_of_faces_is_prepared_as_celeba(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "data"
    write = ("synthetic:faces", "--layout", "celeba", "--out", tree, "--n", 10)
    code, stdout, stderr = civae(*write)
    assert code == 0 and stdout == f"{tree}\n"
    assert f"10 portraits (train 8, valid 1, test 1); next: civae prepare-data {tree}" in stderr
    code, stdout, _ = civae(*write, "--json", "-q")
    written = json.loads(stdout)
    assert code == 0 and written["tree"] == str(tree) and written["fresh"] is False
    code, stdout, _ = civae(tree, "--out", out, "--size", 32, "--workers", 1, "--json", "-q")
    read = json.loads(stdout)
    assert code == 0 and read["name"] == "CelebA"
    assert {key: read[key] for key in ("images", "splits", "attributes")} == {
        key: written[key] for key in ("images", "splits", "attributes")
    }


def test_the_question_is_answered_in_the_report(photos: Path, tmp_path: Path) -> None:
    code, _, _ = civae(
        photos, "--out", tmp_path / "data", "--treatment", "Male", "--covariate", "Age", "--workers", 1
    )
    facts = json.loads((tmp_path / "data" / "report.json").read_text())
    assert code == 0 and facts["question"] == {"treatment": ["Male"], "covariates": ["Age"]}


def test_a_column_that_may_hold_categories_is_told_of(photos: Path, tmp_path: Path) -> None:
    table = (photos / "metadata.csv").read_text().splitlines()
    rows = [f"{line},{number % 5}" for number, line in enumerate(table[1:])]
    (photos / "metadata.csv").write_text("\n".join([f"{table[0]},Race", *rows]) + "\n")
    code, _, stderr = civae(photos, "--out", tmp_path / "data", "--workers", 1)
    note = "Column Race contains only 5 different whole numbers (0 to 4) and was treated as continuous."
    assert code == 0 and note in stderr
    assert note in (tmp_path / "data" / "report.html").read_text()


def test_a_question_about_a_column_of_text_is_told_why_it_was_left_out(photos: Path, tmp_path: Path) -> None:
    table = (photos / "metadata.csv").read_text().splitlines()
    rows = [f"{line},{'mf'[number % 2]}," for number, line in enumerate(table[1:])]
    (photos / "metadata.csv").write_text("\n".join([f"{table[0]},Sex,Hair", *rows]) + "\n")
    asked = (photos, "--out", tmp_path / "data", "--treatment", "Male", "--covariate")
    code, _, stderr = civae(*asked, "Sex")
    assert code == 2 and "column Sex was left out: it contains text, such as 'm' in line 2\n" in stderr
    assert "0 and 1" in stderr.partition("\n\nhint: ")[2]
    code, _, stderr = civae(*asked, "Hair")
    assert code == 2 and "--covariate Hair: column Hair was left out: it is empty\n" in stderr


def test_whoever_asks_for_a_column_that_was_left_out_is_told_why(photos: Path, tmp_path: Path) -> None:
    table = (photos / "metadata.csv").read_text().splitlines()
    rows = [f"{line},{'a long description ' * 9}" for line in table[1:]]
    (photos / "metadata.csv").write_text("\n".join([f"{table[0]},Caption", *rows]) + "\n")
    assert civae(photos, "--out", tmp_path / "data", "--size", 16, "--workers", 1)[0] == 0
    asked = ["train", "--out", str(tmp_path / "run"), "--dry-run", "--set", f"data.path={tmp_path / 'data'}"]

    def refusal(name: str) -> str:
        result = CliRunner().invoke(app, [*asked, "--set", f"data.treatment={name}"])
        assert result.exit_code == 2
        return result.stderr

    told = refusal("Caption")
    assert "data.treatment: column Caption was left out: it contains text, such as 'a long desc" in told
    assert " a …' in line 2\n\nhint: fill it with numbers and prepare the data again" in told
    evaluating = ["evaluate", "--data", str(tmp_path / "data"), "--questions", str(tmp_path / "questions")]
    for flags in (["--treatment", "Caption"], ["--treatment", "Male", "--covariate", "Caption"]):
        result = CliRunner().invoke(app, [*evaluating, *flags])
        assert result.exit_code == 2 and ": column Caption was left out: it contains text" in result.stderr
    assert "data.treatment: unknown attribute 'Mael' (did you mean Male?)" in refusal("Mael")
    (tmp_path / "data" / "report.json").unlink()
    assert "data.treatment: unknown attribute 'Caption'" in refusal("Caption")


def test_bad_images(photos: Path, tmp_path: Path) -> None:
    jpeg = photos / "3.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-100])
    (photos / "4.jpg").write_text("not a picture")
    arguments = (photos, "--out", tmp_path / "data", "--workers", 1)
    code, stdout, stderr = civae(*arguments)
    assert code == 3 and stdout == ""
    assert "2 of 10 images cannot be used" in stderr and "hint: " in stderr and "--max-bad" in stderr
    assert "3.jpg: damaged image" in stderr and "4.jpg: not an image" in stderr
    code, _, stderr = civae(*arguments, "--max-bad", "20%")
    assert code == 0 and "2 left out" in stderr
    page = (tmp_path / "data" / "report.html").read_text()
    assert "3.jpg" in page and "4.jpg" in page


def empty(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "empty").mkdir()
    return (tmp_path / "empty", "--out", tmp_path / "data")


def foreign(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    return (tmp_path / "photos", "--out", tmp_path / "mine")


def unwritable(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "file").touch()
    return (tmp_path / "photos", "--out", tmp_path / "file" / "data")


def unknown_column(tmp_path: Path) -> tuple[object, ...]:
    return (tmp_path / "photos", "--out", tmp_path / "data", "--treatment", "Mail")


def nowhere(tmp_path: Path) -> tuple[object, ...]:
    return (tmp_path / "nowhere", "--out", tmp_path / "data")


def no_effect(tmp_path: Path) -> tuple[object, ...]:
    return (tmp_path / "photos", "--out", tmp_path / "data", "--n", 100)


def tree_of_photos(tmp_path: Path) -> tuple[object, ...]:
    return (tmp_path / "photos", "--out", tmp_path / "data", "--layout", "celeba")


def sized_tree(tmp_path: Path) -> tuple[object, ...]:
    return ("synthetic:faces", "--out", tmp_path / "data", "--layout", "celeba", "--size", 64)


def tree_with_truths(tmp_path: Path) -> tuple[object, ...]:
    return ("synthetic:faces", "--out", tmp_path / "data", "--layout", "celeba", "--truth", "Young=0")


def no_workers(tmp_path: Path) -> tuple[object, ...]:
    return (tmp_path / "photos", "--out", tmp_path / "data", "--workers", 0)


@pytest.mark.parametrize(
    ("make", "code", "message", "hint"),
    [
        (empty, 3, "is empty", "metadata.csv"),
        (foreign, 2, "is not empty and was not written by prepare-data", "new or empty folder"),
        (unwritable, 1, "cannot write", ""),
        (unknown_column, 2, "--treatment Mail: unknown attribute 'Mail' (did you mean Male?)", "Male, Age"),
        (nowhere, 3, "no such folder", "synthetic:faces"),
        (no_effect, 2, "--n 100 has no effect here", "omit --n"),
        (tree_of_photos, 2, "--layout celeba is for synthetic:faces", "omit --layout"),
        (sized_tree, 2, "--size 64 has no effect with --layout celeba", "omit --size"),
        (tree_with_truths, 2, "--truth Young=0 has no effect with --layout celeba", "omit --truth"),
        (no_workers, 2, "--workers 0", "one per core"),
    ],
)
def test_bad_input(photos: Path, tmp_path: Path, make: object, code: int, message: str, hint: str) -> None:
    arguments = make(tmp_path)  # type: ignore[operator]
    exit_code, stdout, stderr = civae(*arguments)
    assert exit_code == code and stdout == ""
    assert message in stderr and stderr.startswith("error: ")
    assert not hint or hint in stderr.partition("\n\nhint: ")[2]
    assert not (tmp_path / "data").exists()
