"""Pictures come in the order they were named in, from wherever they lie; a bad one does not stop the others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from civae_core.attributes import Attribute
from civae_core.data import PreparedData
from civae_core.errors import DataError, UsageError
from civae_core.inference.pictures import Picture, Pictures

FORMAT = {"size": 8, "channels": 3, "crop": None}


def photo(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (grey, grey, grey)).save(path)
    return path


def named(arguments: Sequence[object], stdin: Sequence[str] = ()) -> list[str]:
    found = list(Pictures([str(a) for a in arguments], FORMAT, stdin=stdin))
    assert all(isinstance(picture, Picture) for picture in found)
    return [picture.name for picture in found if isinstance(picture, Picture)]


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    one, two, three = (photo(tmp_path / name) for name in ("c.png", "many/b.JPG", "many/a.webp"))
    (tmp_path / "many" / "notes.txt").write_text("no picture")
    (tmp_path / "many" / "deeper").mkdir()
    assert named([one]) == [str(one)]
    assert named([tmp_path / "many", one]) == [str(three), str(two), str(one)], "a folder's are sorted"
    assert named([f"{tmp_path}/**/*.[jJ][pP]*"]) == [str(two)]
    assert named([f"{tmp_path}/many/[ab].*"]) == [str(three), str(two)]
    assert named([one, one]) == [str(one)] * 2


def test_what_macos_leaves_beside_a_picture_is_none(tmp_path: Path) -> None:
    one = photo(tmp_path / "me.jpg")
    (tmp_path / "._me.jpg").write_bytes(b"\0\5\x16\7 Mac OS X")
    assert named([tmp_path]) == [str(one)]
    one.unlink()
    with pytest.raises(UsageError, match="a folder without images"):
        named([tmp_path])


def test_a_file_with_brackets_in_its_name_is_itself(tmp_path: Path) -> None:
    odd = photo(tmp_path / "me[1].png")
    photo(tmp_path / "me1.png")
    assert named([odd]) == [str(odd)]


@pytest.mark.parametrize("name", ["missing.png", "a" * 300, "a/" * 3000], ids=["short", "name", "path"])
def test_a_name_of_no_file_is_refused_however_long(name: str) -> None:
    for arguments, stdin in (([name], ()), (["-"], [f"{name}\n"])):
        with pytest.raises(UsageError, match="no such file, folder or pattern"):
            named(arguments, stdin)
    with pytest.raises(UsageError, match="no file matches this pattern"):
        named([f"{name}*"])


def test_a_list_on_standard_input(tmp_path: Path, faces: PreparedData) -> None:
    one = photo(tmp_path / "with space.png")
    assert named(["-"], stdin=[f"{one}\n", "\n", f"{one}\r\n"]) == [str(one)] * 2
    with pytest.raises(UsageError, match="names no picture"):
        named(["-"], stdin=["\n"])


def test_pixels_and_stem(tmp_path: Path) -> None:
    (picture,) = Pictures([str(photo(tmp_path / "me.png", grey=77))], FORMAT)
    assert isinstance(picture, Picture)
    assert (picture.stem, picture.known) == ("me", {})
    assert picture.pixels_CHW.shape == (3, 8, 8)
    assert picture.pixels_CHW.dtype == np.uint8
    assert (picture.pixels_CHW == 77).all()


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [("#test", range(30)), ("#test[17]", [17]), ("#test[3:6]", [3, 4, 5]), ("#test[28:]", [28, 29])],
)
def test_prepared_pictures_are_numbered_within_their_split(
    faces: PreparedData, selection: str, numbers: Sequence[int]
) -> None:
    found = [p for p in Pictures([f"{faces.path}{selection}"], faces.preprocessing) if isinstance(p, Picture)]
    assert [p.name for p in found] == [f"{faces.path}#test[{number}]" for number in numbers]
    assert found[0].stem == f"test-{numbers[0]:05d}"
    rows = faces.rows("test")[torch.tensor(list(numbers))]
    assert np.array_equal(np.stack([p.pixels_CHW for p in found]), faces.images(rows))
    assert [p.known["Young"] for p in found] == faces.column("Young")[rows].tolist()


def test_a_missing_label_is_not_known(faces: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures([f"{faces.path}#test[0]"], faces.preprocessing)
    ((data, _, _, row),) = (entry for entry in pictures.entries if isinstance(entry, tuple))
    table_NA = data.table_NA.clone()
    table_NA[row, [a.name for a in data.attributes].index("Male")] = torch.nan
    monkeypatch.setattr(data, "table_NA", table_NA)
    (picture,) = pictures
    assert isinstance(picture, Picture)
    assert "Young" in picture.known
    assert "Male" not in picture.known


def test_prepared_pictures_of_another_size_are_refused(faces: PreparedData) -> None:
    with pytest.raises(UsageError, match="images are 3×32×32, the model takes 3×8×8"):
        Pictures([f"{faces.path}#test"], FORMAT)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere.png", "nowhere.png: no such file, folder or pattern"),
        ("*.jpeg", "no file matches this pattern"),
        ("empty", "a folder without images"),
        ("deep*", "no file matches this pattern"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, argument: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep").mkdir()
    with pytest.raises(UsageError, match=message):
        Pictures([str(tmp_path / argument)], FORMAT)


def test_a_corrupt_file_comes_as_its_error_and_the_others_go_on(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("I am text")
    whole = photo(tmp_path / "c.jpg")
    (tmp_path / "d.jpg").write_bytes(whole.read_bytes()[:300])
    photo(tmp_path / "e.png")
    pictures = Pictures([str(tmp_path)], FORMAT)
    assert len(pictures) == 5
    found = list(pictures)
    assert [isinstance(entry, DataError) for entry in found] == [False, True, False, True, False]
    errors = [str(entry) for entry in found if isinstance(entry, DataError)]
    assert "b.jpg" in errors[0]
    assert "d.jpg" in errors[1]


def test_a_table_states_what_is_known_of_photographs(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.png")
    photo(tmp_path / "photos" / "sub" / "b.png")
    photo(tmp_path / "c.png")
    table = tmp_path / "photos" / "labels.csv"
    table.write_text("file_name,Young,Age\na.png,1,44.5\nsub/b.png,-1,\nz.png,1,20\n")
    arguments = [str(tmp_path / place) for place in ("photos", "photos/sub/b.png", "c.png")]
    a, b, c = Pictures(arguments, FORMAT, table=table)
    assert isinstance(a, Picture) and isinstance(b, Picture) and isinstance(c, Picture)
    assert a.known == {"Young": 1.0, "Age": 44.5}
    assert b.known == {"Young": 0.0}, "−1 means 0, and an empty cell is unknown"
    assert c.known == {}


@pytest.mark.parametrize(("cells", "temperatures"), [(["-1"], [-1.0]), (["-1", "1"], [-1.0, 1.0])])
def test_a_table_s_labels_are_of_the_model_s_kinds(
    tmp_path: Path, cells: list[str], temperatures: list[float]
) -> None:
    attributes = [Attribute("Temp", "continuous", -9.0, 30.0, 10.0, 8.0), Attribute("Male", "binary")]
    files = [photo(tmp_path / f"{number}.png") for number in range(len(cells))]
    rows = [f"{file.name},{cell},{cell}\n" for file, cell in zip(files, cells, strict=True)]
    (tmp_path / "labels.csv").write_text(f"file_name,Temp,Male\n{''.join(rows)}")
    pictures = Pictures(list(map(str, files)), FORMAT, table=tmp_path / "labels.csv", attributes=attributes)
    known = [picture.known for picture in pictures if isinstance(picture, Picture)]
    assert [values["Temp"] for values in known] == temperatures, (
        "as it was written, however few rows there are"
    )
    assert [values["Male"] for values in known] == [max(value, 0.0) for value in temperatures]


def test_text_for_an_attribute_of_the_model_is_refused_and_not_left_out(tmp_path: Path) -> None:
    attributes = [Attribute("Male", "binary"), Attribute("Age", "continuous", 0.0, 99.0, 40.0, 9.0)]
    file, table = photo(tmp_path / "a.png"), tmp_path / "labels.csv"
    table.write_text("file_name,Male,Age,Note\na.png,female,31,blurred\n")
    with pytest.raises(DataError, match=r"labels\.csv:2: Male is 'female', not a number"):
        Pictures([str(file)], FORMAT, table=table, attributes=attributes)


def test_a_row_without_labels_says_nothing_of_its_photo_nor_of_another(tmp_path: Path) -> None:
    named, unlabelled = photo(tmp_path / "1.jpg"), photo(tmp_path / "a" / "1.jpg")
    table = tmp_path / "labels.csv"
    table.write_text("file_name,Young,Male\n1.jpg,1,1\na/1.jpg,,\n")
    first, second = Pictures([str(named), str(unlabelled)], FORMAT, table=table)
    assert isinstance(first, Picture) and isinstance(second, Picture)
    assert (first.known, second.known) == ({"Young": 1.0, "Male": 1.0}, {})
    (alone,) = Pictures([str(unlabelled)], FORMAT, table=table)
    assert isinstance(alone, Picture) and alone.known == {}, "the table names it"


def test_prepared_labels_of_another_kind_than_the_model_s_are_refused(faces: PreparedData) -> None:
    attributes = [Attribute("Young", "continuous", 0.0, 9.0, 4.0, 2.0)]
    with pytest.raises(DataError, match=r"#test\[0\]: Young is binary there, but the model .* as continuous"):
        Pictures([f"{faces.path}#test[0]"], faces.preprocessing, attributes=attributes)


def test_what_a_table_says_beyond_training_is_one_sentence_an_attribute(tmp_path: Path) -> None:
    age, male = Attribute("Age", "continuous", 20.0, 60.0, 40.0, 10.0), Attribute("Male", "binary")
    files = [photo(tmp_path / f"{name}.png") for name in "abcd"]
    (tmp_path / "labels.csv").write_text("file_name,Age,Male\na.png,60,1\nb.png,61,3\nc.png,5,\nd.png,,0\n")
    pictures = Pictures([str(f) for f in [*files, files[1]]], FORMAT, table=tmp_path / "labels.csv")
    a_of_b = f"{files[1]}: Age=61 (training saw 20 to 60), and 1 more"
    of_male = f"{files[1]}: Male=3 (training saw 0 to 1)"
    assert pictures.beyond_training([age, male]) == {"Age": a_of_b, "Male": of_male}
    assert pictures.beyond_training([age, male], ["Male"]) == {"Age": a_of_b}, "which --attr states instead"
    assert pictures.beyond_training([male], {"Male": 1.0}) == {}


def test_prepared_pictures_have_no_photograph(tmp_path: Path, faces: PreparedData) -> None:
    photo(tmp_path / "photo.png")
    photos = Pictures([str(tmp_path / "photo.png")], faces.preprocessing)
    photos.require_photos("--native")
    assert [picture.file for picture in photos if isinstance(picture, Picture)] == [tmp_path / "photo.png"]
    mixed = Pictures([str(tmp_path / "photo.png"), f"{faces.path}#test[3]"], faces.preprocessing)
    with pytest.raises(UsageError, match=r"--native: .*#test\[3\] is prepared data"):
        mixed.require_photos("--native")
