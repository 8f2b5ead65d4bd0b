"""Other programs' pictures: asked, answered, read back and scored; and tables that must be refused."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.evaluation.evaluate import Evaluation, evaluate_questions
from civae_core.evaluation.foreign import (
    TABLE,
    ForeignImages,
    answering,
    foreign_questions,
    open_foreign,
    write_questions,
)
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.question import ask
from civae_core.figures.pictures import to_picture

Row = dict[str, str]


@pytest.fixture
def face_roles(faces: PreparedData) -> AttributeRoles:
    return AttributeRoles.assign(faces.attributes, ["Young"], ["Male"], ["Gray_Hair"])


@pytest.fixture
def folder(faces: PreparedData, face_roles: AttributeRoles, tmp_path: Path) -> Path:
    """Twelve questions about test faces, answered by nobody yet."""
    question = ask(faces, face_roles, labelled_rows(faces, face_roles, "test")[:12])[0]
    write_questions(faces, question, face_roles, tmp_path / "theirs")
    return tmp_path / "theirs"


def rows_of(folder: Path) -> list[Row]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(folder: Path, rows: list[Row], encoding: str = "utf-8", end: str = "\n") -> None:
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    (folder / TABLE).write_bytes((end.join(lines) + end).encode(encoding))


def answer_all(folder: Path, picture: Callable[[Row], Image.Image]) -> None:
    """Another program: reads the table, and puts its pictures where the table says."""
    for row in rows_of(folder):
        (folder / row["file_name"]).parent.mkdir(exist_ok=True)
        picture(row).save(folder / row["file_name"])


def scored(folder: Path, data: PreparedData, roles: AttributeRoles, **more: Any) -> Evaluation:
    foreign = open_foreign(folder, data, ["Young"], **more)
    return evaluate_questions(
        foreign_questions(foreign, data, roles),
        answering(foreign, roles, data),
        data,
        roles,
        split="test",
        seed=0,
        instruments=Instruments(),
    )


def copied(folder: Path) -> Callable[[Row], Image.Image]:
    return lambda row: Image.open(folder / row["source_image"])


def test_copies_score_one_and_truths_zero(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    found = scored(folder, faces, face_roles)
    assert found.numbers["do"] == {"Young": "flip"} and found.numbers["n"] == 12
    assert set(found.numbers["methods"]) == {"copy", "theirs"}
    assert found.numbers["methods"]["theirs"]["relative_effect_error"] == {"mean": 1.0, "lo": 1.0, "hi": 1.0}

    (truth,) = faces.truth
    numbers = {f"test[{i}]": i for i in range(12)}
    place = {name: truth.rows.tolist().index(int(faces.rows("test")[i])) for name, i in numbers.items()}
    answer_all(folder, lambda row: to_picture(truth.images(torch.tensor([place[row["source"]]]))[0]))
    found = scored(folder, faces, face_roles, name="an oracle")
    entry = found.numbers["methods"]["an oracle"]
    assert entry["relative_effect_error"]["mean"] == 0.0 and entry["ate_error"] == 0.0
    assert {picture.name for picture in found.pictures} == {"sheet_Young-flip", "changes_Young-flip"}


def test_the_questions_are_the_sources_themselves(folder: Path, faces: PreparedData) -> None:
    rows = rows_of(folder)
    young_N = faces.column("Young")[faces.rows("test")]
    for i, row in enumerate(rows):
        assert row["source"] == f"test[{i}]" and float(row["Young"]) == 1 - float(young_N[i])
        with Image.open(folder / row["source_image"]) as picture:
            assert picture.tobytes() == to_picture(faces.images(faces.rows("test")[i : i + 1])[0]).tobytes()


def test_file_names_several_methods_reconstructions_and_windows_tables(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    names = [faces.file_names[int(row)] for row in faces.rows("test")[:12]]
    rows = [
        {
            "file_name": row["file_name"].replace("/", "\\\\"),
            "source": name,
            "Young": row["Young"],
            "method": method,
            "reconstruction": row["source_image"] if method == "β model" else "",
        }
        for method in ("β model", "plain")
        for row, name in zip(rows_of(folder), names, strict=True)
    ]
    write_rows(folder, rows, encoding="utf-8-sig", end="\r\n")
    methods = scored(folder, faces, face_roles).numbers["methods"]
    assert list(methods) == ["copy", "β model", "plain"]
    assert "relative_effect_error_mean_image" in methods["β model"]
    assert "relative_effect_error_mean_image" not in methods["plain"]


def test_a_sweep_asks_about_one_subject_several_times_and_what_has_no_truth_stands_apart(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    first = rows_of(folder)[0]
    rows = [{**first, "Young": value} for value in ("0", "0.25", "1")]
    write_rows(folder, rows)
    foreign = open_foreign(folder, faces, ["Young"])
    known, unknown = foreign_questions(foreign, faces, face_roles)
    assert known.truth is not None and unknown.truth is None
    factual = float(faces.column("Young")[faces.rows("test")[0]])
    assert known.t_new_NT.tolist() == [[1 - factual]] and len(unknown.chosen) == 2
    assert unknown.do == {"Young": "as listed"}
    numbers = scored(folder, faces, face_roles).numbers
    assert numbers["n"] == 1 and numbers["methods"]["theirs"]["relative_effect_error"]["mean"] == 1.0


def refused(folder: Path, data: PreparedData, roles: AttributeRoles) -> CivaeError:
    with pytest.raises((UsageError, DataError)) as caught:
        scored(folder, data, roles)
    return caught.value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "../../etc/passwd"}, "leaves the image folder"),
        ({"file_name": "/etc/passwd"}, "leaves the image folder"),
        ({"file_name": "answers/gone.png"}, "there is no file"),
        ({"source": "test[999]"}, "is outside the split"),
        ({"source": "somebody.png"}, "is no image of"),
        ({"source": "test"}, "is no image of"),
        ({"Young": "old"}, "not a number"),
        ({"Young": "inf"}, "no value that can be intended"),
        ({"Young": "1e39"}, "no value that can be intended"),
        ({"Young": ""}, "Young is empty"),
    ],
)
def test_a_bad_row_is_named_by_its_line(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles, change: Row, message: str
) -> None:
    answer_all(folder, copied(folder))
    rows = rows_of(folder)
    rows[4] |= change
    write_rows(folder, rows)
    error = refused(folder, faces, face_roles)
    assert message in error.message and f"{TABLE}:6" in error.message, error.message


def test_tables_and_pictures_that_cannot_be_scored(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles, tmp_path: Path
) -> None:
    assert "there is no file" in refused(folder, faces, face_roles).message, "nobody has answered"
    answer_all(folder, copied(folder))
    rows = rows_of(folder)
    write_rows(folder, [*rows, rows[0]])
    assert "answered this already" in refused(folder, faces, face_roles).message
    write_rows(folder, [{"file_name": row["file_name"], "source": row["source"]} for row in rows])
    error = refused(folder, faces, face_roles)
    assert "which treatment was intended (Young)" in error.message and "file_name, source" in str(error.hint)
    write_rows(folder, [{**row, "method": "a" if i else "b"} for i, row in enumerate(rows)])
    assert "has no answer for image" in refused(folder, faces, face_roles).message
    write_rows(folder, rows)
    (folder / rows[3]["file_name"]).write_bytes(b"not a picture")
    assert "not a readable picture" in refused(folder, faces, face_roles).message
    Image.new("RGB", (48, 48)).save(folder / rows[3]["file_name"])
    assert "48×48 pixels, the prepared images have 32×32" in refused(folder, faces, face_roles).message
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    (folder / rows[3]["file_name"]).unlink()
    (folder / rows[3]["file_name"]).symlink_to(secret)
    assert "a link that leaves the folder" in refused(folder, faces, face_roles).message
    (folder / TABLE).unlink()
    assert "--questions" in str(refused(folder, faces, face_roles).hint)


def test_pictures_are_read_batch_by_batch(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_all(folder, copied(folder))
    foreign: ForeignImages = open_foreign(folder, faces, ["Young"])
    (question,) = foreign_questions(foreign, faces, face_roles)
    (method,) = answering(foreign, face_roles, faces)
    asked = question.batch(faces, slice(2, 5), torch.device("cpu"))
    assert torch.equal(method.answer(asked).with_noise_BCHW, asked.y_BCHW)
