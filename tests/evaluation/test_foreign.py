"""Other programs' pictures: asked, answered, read back and scored; and tables that must be refused."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from PIL import Image

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.data.splits import SPLITS
from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.evaluation.evaluate import Evaluation, evaluate_questions
from civae_core.evaluation.foreign import (
    ForeignImages,
    answering,
    foreign_questions,
    open_foreign,
    write_questions,
)
from civae_core.evaluation.foreign_table import TABLE, read_answers
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.question import ask
from civae_core.evaluation.tallies import first_binary_treatment
from civae_core.figures.pictures import to_picture
from civae_core.inference.png import write_image

CPU = torch.device("cpu")
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


def scored(folder: Path, data: PreparedData, roles: AttributeRoles) -> Evaluation:
    foreign = open_foreign(folder, data, ["Young"])
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
    found = scored(folder, faces, face_roles)
    entry = found.numbers["methods"]["theirs"]
    assert entry["relative_effect_error"]["mean"] == 0.0 and entry["ate_error"] == 0.0
    assert {picture.name for picture in found.pictures} == {"sheet_Young-flip", "changes_Young-flip"}


def test_the_program_in_the_docs_is_scored(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "yardstick.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(folder.parent)
    exec(program, {})
    numbers = scored(folder, faces, face_roles).numbers
    assert numbers["n"] == 12
    assert 0.8 < numbers["methods"]["theirs"]["relative_effect_error"]["mean"] < 1.0, (
        "grey hair is some of it"
    )


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
    rows = [{**first, "Young": value} for value in ("0", "0.25", "0.75", "1")]
    write_rows(folder, rows)
    foreign = open_foreign(folder, faces, ["Young"])
    known, unknown = foreign_questions(foreign, faces, face_roles)
    assert known.truth is not None and unknown.truth is None
    factual = float(faces.column("Young")[faces.rows("test")[0]])
    assert known.t_new_NT.tolist() == [[1 - factual]], "its own dose is not asked"
    assert unknown.t_new_NT.tolist() == [[0.25], [0.75]] and unknown.do == {"Young": "as listed"}
    numbers = scored(folder, faces, face_roles).numbers
    assert numbers["n"] == 1 and numbers["methods"]["theirs"]["relative_effect_error"]["mean"] == 1.0


def test_rows_that_intend_no_change_are_left_out_and_said_to_be(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles, caplog: pytest.LogCaptureFixture
) -> None:
    answer_all(folder, copied(folder))
    asked = scored(folder, faces, face_roles).numbers
    assert not caplog.records
    rows = rows_of(folder)
    more = [
        {**row, "source": f"test[{i}]", "Young": f"{young:g}"} for i, young, row in unchanged(faces, rows)
    ]
    write_rows(folder, [*rows, *more])
    assert scored(folder, faces, face_roles).numbers == asked, "they would have looked faultless"
    (record,) = caplog.records
    assert f"{len(more)} of {len(more) + 12} answers intend no change and are left out" in record.message
    write_rows(folder, [row for row in [*rows, *more] if row["Young"] == "0"])
    numbers = scored(folder, faces, face_roles).numbers
    assert numbers["do"] == {"Young": 0.0}, "of those who are changed"
    assert numbers["n"] == sum(row["Young"] == "0" for row in rows)


def unchanged(faces: PreparedData, rows: list[Row]) -> list[tuple[int, float, Row]]:
    """Place, own treatment and answered row of the first five test faces."""
    young = faces.column("Young")[faces.rows("test")].tolist()
    return list(zip(range(5), young, rows, strict=False))


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
        ({"source": "somebody.png"}, "is not an image of"),
        ({"source": "test"}, "is not an image of"),
        ({"Young": "old"}, "not a number"),
        ({"Young": "inf"}, "not a value that can be intended"),
        ({"Young": "1e39"}, "not a value that can be intended"),
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
    assert "already answers this" in refused(folder, faces, face_roles).message
    write_rows(folder, [{"file_name": row["file_name"], "source": row["source"]} for row in rows])
    error = refused(folder, faces, face_roles)
    assert "which treatment was intended (Young)" in error.message and "file_name, source" in str(error.hint)
    write_rows(folder, [{**row, "method": "a" if i else "b"} for i, row in enumerate(rows)])
    message = refused(folder, faces, face_roles).message
    assert (
        f"a has no answer for test[0] under Young={float(rows[0]['Young']):g}, which line 2 answers"
        in message
    )
    assert "it lacks 1 in all" in message
    write_rows(folder, [{**row, "method": "copy"} for row in rows])
    assert "is the name of one of civae's own methods" in refused(folder, faces, face_roles).message
    write_rows(
        folder, [{**row, "reconstruction": row["source_image"] if i else ""} for i, row in enumerate(rows)]
    )
    assert (
        f"{TABLE}:3: theirs has a reconstruction in this line or in line 2"
        in refused(folder, faces, face_roles).message
    )
    write_rows(folder, [{**row, "Young": row["factual_Young"]} for row in rows])
    assert "no row intends a change" in refused(folder, faces, face_roles).message
    write_rows(folder, rows)
    (folder / rows[3]["file_name"]).write_bytes(b"not a picture")
    assert f"{TABLE}:5: " in refused(folder, faces, face_roles).message
    assert refused(folder, faces, face_roles).message.endswith("answers/000003.png: not an image")
    whole = (folder / rows[5]["file_name"]).read_bytes()
    (folder / rows[5]["file_name"]).write_bytes(whole[: len(whole) // 2])
    message = refused(folder, faces, face_roles).message
    assert "000003.png" in message and message.endswith("; 2 of 12 pictures are unusable")
    (folder / rows[5]["file_name"]).write_bytes(whole)
    Image.new("RGB", (48, 48)).save(folder / rows[3]["file_name"])
    assert "48×48 pixels, but the prepared images have 32×32" in refused(folder, faces, face_roles).message
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    (folder / rows[3]["file_name"]).unlink()
    (folder / rows[3]["file_name"]).symlink_to(secret)
    assert "a link that points outside the folder" in refused(folder, faces, face_roles).message
    (folder / TABLE).unlink()
    assert "--questions" in str(refused(folder, faces, face_roles).hint)


def test_pictures_are_read_batch_by_batch_and_only_for_what_was_answered(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    foreign: ForeignImages = open_foreign(folder, faces, ["Young"])
    (question,) = foreign_questions(foreign, faces, face_roles)
    (method,) = answering(foreign, face_roles, faces)
    asked = question.batch(faces, slice(2, 5), CPU)
    Image.new("RGB", (32, 32)).save(folder / rows_of(folder)[0]["file_name"])
    assert torch.equal(method.answer(asked).with_noise_BCHW, asked.y_BCHW), (
        "pixel for pixel, outside the first"
    )
    everybody = labelled_rows(faces, face_roles, "test")
    unasked = ask(faces, face_roles, everybody)[0].batch(faces, slice(12, 13), CPU)
    with pytest.raises(DataError, match=r"theirs has no picture that answers test\[12\] under Young="):
        method.answer(unasked)


def test_reconstructions_are_read_and_refused_as_answers_are(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    Image.new("RGB", (32, 32), (51, 102, 204)).save(folder / "flat.png")
    rows = [{**row, "reconstruction": "flat.png"} for row in rows_of(folder)]
    write_rows(folder, rows)
    foreign = open_foreign(folder, faces, ["Young"])
    (question,) = foreign_questions(foreign, faces, face_roles)
    (method,) = answering(foreign, face_roles, faces)
    answer = method.answer(question.batch(faces, slice(0, 2), CPU))
    assert answer.mean_BCHW is not None and torch.equal(answer.mean_BCHW, answer.with_noise_BCHW)
    assert answer.reconstruction_BCHW is not None
    flat_3 = torch.tensor([0.2, 0.4, 0.8])
    assert torch.allclose(answer.reconstruction_BCHW, flat_3[:, None, None].expand(2, 3, 32, 32))
    rows[7]["reconstruction"] = "gone.png"
    write_rows(folder, rows)
    assert f"{TABLE}:9: there is no file" in refused(folder, faces, face_roles).message
    rows[7]["reconstruction"] = "../flat.png"
    write_rows(folder, rows)
    message = refused(folder, faces, face_roles).message
    assert f"{TABLE}:9: reconstruction '../flat.png' does not name a file in the folder" in message


# Tables as programs and people write them.


def test_json_lines_say_the_same(folder: Path, faces: PreparedData, face_roles: AttributeRoles) -> None:
    answer_all(folder, copied(folder))
    rows = [{**row, "Young": float(row["Young"])} for row in rows_of(folder)]
    lines = "\n".join(json.dumps(row) for row in reversed(rows))
    (folder / "counterfactuals.jsonl").write_text(lines, encoding="utf-8")
    assert "holds both" in refused(folder, faces, face_roles).message
    (folder / TABLE).rename(folder / "kept.csv")
    found = open_foreign(folder, faces, ["Young"])
    (folder / "counterfactuals.jsonl").unlink()
    (folder / "kept.csv").rename(folder / TABLE)
    csv_says = open_foreign(folder, faces, ["Young"])
    assert found.files == csv_says.files, "whatever the order of the rows"
    assert torch.equal(found.rows_N, csv_says.rows_N) and torch.equal(found.t_new_NT, csv_says.t_new_NT)


def test_names_with_spaces_and_letters_of_any_alphabet(
    folder: Path, faces: PreparedData, face_roles: AttributeRoles
) -> None:
    answer_all(folder, copied(folder))
    rows = rows_of(folder)
    rows[4]["file_name"] = "Größe α, 年 1.png"
    Image.open(folder / rows[4]["source_image"]).save(folder / rows[4]["file_name"])
    write_rows(folder, rows, encoding="utf-8-sig", end="\r\n")
    entry = scored(folder, faces, face_roles).numbers["methods"]["theirs"]
    assert entry["relative_effect_error"]["mean"] == 1.0


def test_columns_that_are_not_read_are_named(
    folder: Path, faces: PreparedData, caplog: pytest.LogCaptureFixture
) -> None:
    answer_all(folder, copied(folder))
    open_foreign(folder, faces, ["Young"])
    assert "ignored columns" not in caplog.text, "what we write ourselves is expected"
    write_rows(folder, [{**row, "Male": "1", "note": "a"} for row in rows_of(folder)])
    assert open_foreign(folder, faces, ["Young"]).treatments == ("Young",)
    assert "ignored columns: Male, note; treatments: Young" in caplog.text
    assert open_foreign(folder, faces, []).treatments == ("Young", "Male")


def test_a_name_that_two_images_bear_is_refused(folder: Path, faces: PreparedData) -> None:
    answer_all(folder, copied(folder))
    data = PreparedData.open(faces.path)
    names = list(data.file_names)
    first, second = (int(row) for row in data.rows("test")[:2])
    names[second] = names[first]
    data.__dict__["file_names"] = names
    write_rows(folder, [{**rows_of(folder)[0], "source": names[first]}])
    with pytest.raises(DataError, match=f"{TABLE}:2: .* has several images called {names[first]}"):
        open_foreign(folder, data, ["Young"])


def test_images_are_looked_up_once_however_many_rows_there_are(folder: Path, faces: PreparedData) -> None:
    doses = [{**row, "Young": f"{dose / 1000}"} for row in rows_of(folder) for dose in range(50)]
    write_rows(folder, doses)
    with patch.object(PreparedData, "rows", autospec=True, side_effect=PreparedData.rows) as looked_up:
        _, listed = read_answers(folder / TABLE, folder, faces, ["Young"], "theirs")
    assert len({(row.row, row.values) for row in listed}) == len(doses) == 600
    assert looked_up.call_count == len(SPLITS)


def test_answers_about_training_images_and_about_other_data(
    folder: Path, faces: PreparedData, drawn_twice: PreparedData, caplog: pytest.LogCaptureFixture
) -> None:
    answer_all(folder, copied(folder))
    with pytest.raises(DataError, match=r"questions\.json: the questions are about other data"):
        open_foreign(folder, drawn_twice, ["Young"])
    rows = [{**row, "source": f"train[{i}]"} for i, row in enumerate(rows_of(folder))]
    write_rows(folder, [*rows[:3], *rows_of(folder)[3:]])
    open_foreign(folder, faces, ["Young"])
    assert "3 of 12 answers are about images of the train split" in caplog.text


# Which truth an answer is held against.


@pytest.fixture(scope="module")
def drawn_twice(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Grey faces with five truths: other sex, old, young, another skin tone and, again, old or young by a flip."""
    source = faces_source(
        count=60,
        seed=1,
        overlap=1.0,
        truths=[
            TruthSpec("Male=flip", {"Male": "flip"}),
            TruthSpec("Young=0", {"Young": 0.0}),
            TruthSpec("Young=1", {"Young": 1.0}),
            TruthSpec("Skin_Tone=0.7654321", {"Skin_Tone": 0.7654321}),
            TruthSpec("Young=flip", {"Young": "flip"}),
        ],
        size=32,
        channels=1,
    )
    out = tmp_path_factory.mktemp("twice") / "faces"
    return prepare(source, out, workers=1, max_bad=MaxBad.parse("0")).data


def test_each_answer_is_held_against_the_truth_of_its_own_intervention(
    drawn_twice: PreparedData, tmp_path: Path
) -> None:
    data = drawn_twice
    roles = AttributeRoles.assign(data.attributes, ["Young"], ["Male"])
    truths = {truth.name: truth for truth in data.truth}
    lines = ["file_name,source,Young"]
    for i, row in enumerate(data.rows("test").tolist()):
        for dose in (1, 0) if i else (1,):
            truth = truths[f"Young={dose}"]
            place = truth.rows.tolist().index(row)
            write_image(tmp_path / f"{i}-{dose}.png", truth.images(torch.tensor([place]))[0])
            lines.append(f"{i}-{dose}.png,test[{i}],{dose}")
    (tmp_path / TABLE).write_text("\n".join(lines), encoding="utf-8")
    foreign = open_foreign(tmp_path, data, ["Young"])
    questions = foreign_questions(foreign, data, roles)
    factual_N = data.column("Young")[data.rows("test")]
    assert {float(q.do["Young"]): len(q.chosen) for q in questions} == {
        1.0: int((factual_N == 0).sum()), 0.0: int((factual_N[1:] == 1).sum())
    }  # fmt: skip
    assert len(questions[0].chosen) > len(questions[1].chosen), "most answers first"
    (method,) = answering(foreign, roles, data)
    for question in questions:
        asked = question.batch(data, slice(None), CPU)
        assert asked.truth_BCHW is not None
        assert torch.equal(method.answer(asked).with_noise_BCHW, asked.truth_BCHW)
        assert (asked.truth_BCHW != asked.y_BCHW).flatten(1).any(dim=1).all()


def test_a_treatment_listed_with_the_value_it_has_is_not_intervened_on(
    drawn_twice: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each face a program changes Young alone and Male alone, and its table always has both columns."""
    data = drawn_twice
    roles = AttributeRoles.assign(data.attributes, ["Young", "Male"], [])
    lines = ["file_name,source,Young,Male"]
    for i, row in enumerate(data.rows("test").tolist()):
        young, male = (int(data.column(name)[row]) for name in ("Young", "Male"))
        for values in ((1 - young, male), (young, 1 - male)):
            lines.append(f"{len(lines)}.png,test[{i}],{values[0]},{values[1]}")
            write_image(tmp_path / f"{len(lines) - 1}.png", data.images(torch.tensor([row]))[0])
    (tmp_path / TABLE).write_text("\n".join(lines), encoding="utf-8")
    foreign = open_foreign(tmp_path, data, ["Young", "Male"])
    questions = foreign_questions(foreign, data, roles)
    assert sorted(map(str, (dict(q.do) for q in questions))) == [
        "{'Male': 'flip'}",
        "{'Young': 0.0}",
        "{'Young': 1.0}",
    ]
    (sex,) = (question for question in questions if "Male" in question.do)
    assert first_binary_treatment(sex, roles) == 1
    # Without a known truth, all answers form one question, and either treatment changes in some of them.
    monkeypatch.setattr(data, "truth", ())
    (together,) = foreign_questions(foreign, data, roles)
    assert together.do == {"Young": "as listed", "Male": "as listed"}


def test_a_continuous_dose_comes_back_as_it_was_asked(drawn_twice: PreparedData, tmp_path: Path) -> None:
    data = drawn_twice
    roles = AttributeRoles.assign(data.attributes, ["Young", "Skin_Tone"], ["Male"])
    (question,) = (
        q for q in ask(data, roles, labelled_rows(data, roles, "test")) if set(q.do) == {"Skin_Tone"}
    )
    write_questions(data, question, roles, tmp_path)
    answer_all(tmp_path, copied(tmp_path))
    with Image.open(tmp_path / rows_of(tmp_path)[0]["file_name"]) as picture:
        assert picture.mode == "L", "grey data, grey sources"
    foreign = open_foreign(tmp_path, data, ["Young", "Skin_Tone"])
    (returned,) = foreign_questions(foreign, data, roles)
    assert torch.equal(returned.t_new_NT, question.t_new_NT) and returned.truth is not None
    assert returned.do == {"Skin_Tone": pytest.approx(0.7654321)}, "Young has no column and is left alone"
    assert question.truth is not None
    assert torch.equal(returned.truth.images(slice(None)), question.truth.images(slice(None)))
    rows = rows_of(tmp_path)
    for digits, known in ((6, True), (2, False)):
        write_rows(tmp_path, [{**row, "Skin_Tone": f"{float(row['Skin_Tone']):.{digits}f}"} for row in rows])
        (rounded,) = foreign_questions(open_foreign(tmp_path, data, ["Skin_Tone"]), data, roles)
        assert (rounded.truth is not None) == known, "another program's rounding, but not another dose"
