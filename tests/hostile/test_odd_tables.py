"""Tables and names as they come from other people's machines, and values that no model can take."""

import json
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data import PreparedData
from civae_core.data.tables import LONGEST_LINE, MOST_COLUMNS, read_table
from civae_core.errors import DataError


def table(tmp_path: Path, text: str | bytes, name: str = "metadata.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path)
    return caught.value.message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.jpg,inf\n", ":2: Age is infinite or too large"),
        ("a.jpg,1\nb.jpg,-Infinity\n", ":3: Age is infinite or too large"),
        ("a.jpg,1e39\n", ":2: Age is infinite or too large"),
        ("a.jpg," + "9" * 5000 + "\n", ":2: Age is infinite or too large"),
        ("a.jpg,1\na.jpg,2\n", ":3: a.jpg is already in line 2"),
        ("a.jpg,1\n./a.jpg,2\n", ":3: a.jpg is already in line 2"),
        ("x/a.jpg,1\nx//a.jpg,2\n", ":3: x/a.jpg is already in line 2"),
        ("../a.jpg,1\n", ":2: file_name '../a.jpg' leaves the image folder"),
        ("x/../../a.jpg,1\n", ":2: file_name 'x/../../a.jpg' leaves the image folder"),
        ("/etc/passwd,1\n", ":2: file_name '/etc/passwd' leaves the image folder"),
        ("..\\a.jpg,1\n", ":2: file_name '..\\\\a.jpg' leaves the image folder"),
        ("C:\\a.jpg,1\n", ":2: file_name 'C:\\\\a.jpg' leaves the image folder"),
        (
            "\\\\host\\share\\a.jpg,1\n",
            ":2: file_name '\\\\\\\\host\\\\share\\\\a.jpg' leaves the image folder",
        ),
    ],
)
def test_values_and_names_that_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    assert refusal(table(tmp_path, "file_name,Age\n" + rows)) == message


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "-nan", "NA", "null", "None", " n/a "])
def test_what_is_no_number_is_a_label_that_nobody_gave(tmp_path: Path, cell: str) -> None:
    read = read_table(table(tmp_path, f"file_name,Age\na.jpg,{cell}\nb.jpg,31.5\n"))
    assert read.kinds == ("continuous",)
    np.testing.assert_array_equal(read.values_NA[:, 0], np.array([np.nan, 31.5], np.float32))


@pytest.mark.parametrize("value", ["NaN", "null", '"nan"'])
def test_neither_is_it_one_in_json(tmp_path: Path, value: str) -> None:
    lines = f'{{"file_name": "a.jpg", "Age": {value}}}\n{{"file_name": "b.jpg", "Age": 31.5}}\n'
    read = read_table(table(tmp_path, lines, "metadata.jsonl"))
    np.testing.assert_array_equal(read.values_NA[:, 0], np.array([np.nan, 31.5], np.float32))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"file_name": "a.jpg", "Age": 1' + "0" * 400 + "}", ":1: Age is infinite or too large"),
        ('{"file_name": "a.jpg", "Age": Infinity}', ":1: Age is infinite or too large"),
        ('{"file_name": "a\\ud800.jpg", "Age": 1}', ":1: file_name 'a\\ud800.jpg' is not Unicode text"),
        ('{"file_name": "a.jpg", "Age\\u001b[2J": 1}', ":1: 'Age\\x1b[2J' is not a valid attribute name"),
        (
            '{"file_name": "a.jpg", "' + "A" * 201 + '": 1}',
            ":1: '" + "A" * 201 + "' is not a valid attribute name",
        ),
        (
            '{"file_name": "a.jpg", "Age": 1, "Age": 2}',
            ":1: not a JSON object: key 'Age' appears twice",
        ),
        ("[" * 100_000, ":1: not a JSON object: nested too deeply"),
    ],
)
def test_json_lines_that_are_refused(tmp_path: Path, row: str, message: str) -> None:
    assert refusal(table(tmp_path, row, "metadata.jsonl")) == message


def test_an_empty_file_and_a_header_alone_are_refused(tmp_path: Path) -> None:
    assert refusal(table(tmp_path, "")) == " is empty"
    assert refusal(table(tmp_path, "file_name,Age\n")) == " has no rows"
    assert refusal(table(tmp_path, "", "metadata.jsonl")) == " has no rows"


def test_lines_and_columns_have_an_end(tmp_path: Path) -> None:
    path = table(tmp_path, b"file_name,Age\na.jpg,")
    with path.open("ab") as file:
        file.truncate(2**31)  # two gigabytes of zeros that take no room
    assert refusal(path) == f":2: the line is longer than {LONGEST_LINE:,} characters"
    names = ",".join(f"c{n}" for n in range(MOST_COLUMNS + 1))
    start = time.process_time()
    assert "1,001 columns are too many" in refusal(
        table(tmp_path, f"file_name,{names}\na.jpg{',1' * (MOST_COLUMNS + 1)}\n")
    )
    assert "column c1 appears twice" in refusal(table(tmp_path, f"file_name,{names},c1\n"))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_change_nothing(tmp_path: Path, end: str, mark: str) -> None:
    lines = ["file_name,split,Male,Age", "a.jpg,train,1,31.5", 'ü b.jpg,VALID,0,"2"', "D.JPG, test ,1,"]
    read = read_table(table(tmp_path, mark + end.join(lines) + end))
    assert read.file_names == ["a.jpg", "ü b.jpg", "D.JPG"] and read.names == ("Male", "Age")
    assert read.splits_N is not None and read.splits_N.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(read.values_NA, np.array([[1, 31.5], [0, 2], [1, np.nan]], np.float32))


def test_names_differing_in_case_or_normalisation_are_different_files(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "é.jpg")
    decomposed = unicodedata.normalize("NFD", "é.jpg")
    read = read_table(table(tmp_path, f"file_name,Age\na.jpg,1\nA.JPG,2\n{composed},3\n{decomposed},4\n"))
    assert read.file_names == ["a.jpg", "A.JPG", composed, decomposed]


def test_a_million_rows_are_read_in_time_that_grows_with_them_alone(tmp_path: Path) -> None:
    """Linear time, not quadratic as with a search among all earlier names."""

    def seconds(count: int) -> float:
        path = tmp_path / "metadata.csv"
        path.write_text("file_name,Age\n" + "".join(f"{n}.jpg,{n % 90}.5\n" for n in range(count)))
        start = time.process_time()
        read = read_table(path)
        assert len(read.file_names) == len(set(read.file_names)) == count and read.kinds == ("continuous",)
        np.testing.assert_array_equal(read.values_NA[:, 0], np.arange(count, dtype=np.float32) % 90 + 0.5)
        return time.process_time() - start

    # Quadratic time would be a hundredfold. Whatever else the machine did may have slowed a try.
    assert any(seconds(40_000) < 30 * seconds(4_000) for _ in range(5))
    seconds(1_000_000)  # and every row is there


# Whole folders.


def prepare(folder: Path, out: Path, *more: str) -> tuple[int, str]:
    arguments = ["prepare-data", str(folder), "--out", str(out), "--size", "16", "--workers", "1", *more]
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.stderr and "internal error" not in result.stderr, result.stderr
    return result.exit_code, result.stderr


def photo(path: Path, mode: str = "RGB", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.full((20, 20, 3), (200, 40, 60), np.uint8)).convert(mode)
    picture.save(path, **options)  # type: ignore[arg-type]


ODD_NAMES = [
    "ünï cödé/ä b.jpg",
    "emoji 😀.png",
    "con spazi .jpg",
    "UPPER.JPG",
    "it's.jpg",
    "a&b<i>.jpg",
    "$HOME.jpg",
    "%s.jpg",
]


def test_odd_names_are_packed_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / "mÿ photos (1)"
    for name in ODD_NAMES:
        photo(folder / name)
    rows = "".join(
        f'"{name}",{n % 2},{("train", "valid", "test")[n % 3]}\n' for n, name in enumerate(ODD_NAMES)
    )
    (folder / "metadata.csv").write_text(f"file_name,Male,split\n{rows}", encoding="utf-8")
    code, errors = prepare(folder, tmp_path / "öut put")
    assert code == 0, errors
    assert list(PreparedData.open(tmp_path / "öut put").file_names) == ODD_NAMES


def test_odd_pictures_become_the_same_colours_or_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    red = Image.fromarray(np.full((20, 20, 3), (200, 40, 60), np.uint8))
    photo(folder / "plain.png")
    photo(folder / "cmyk.jpg", "CMYK", quality=95)
    photo(folder / "palette.gif", "P")
    blue = Image.new("RGB", (20, 20), "blue")
    red.save(folder / "animated.gif", save_all=True, append_images=[blue])
    red.save(folder / "animated.webp", save_all=True, append_images=[blue], lossless=True)
    red.save(folder / "pages.tif", save_all=True, append_images=[blue])
    red.convert("RGBA").save(folder / "alpha.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Dear diary")
    names = sorted(path.name for path in folder.iterdir())
    rows = "".join(f"{name},{n % 2},{('train', 'valid', 'test')[n % 3]}\n" for n, name in enumerate(names))
    (folder / "metadata.csv").write_text(f"file_name,Male,split\n{rows}missing.jpg,1,train\n")
    code, errors = prepare(folder, tmp_path / "few", "--max-bad", "2")
    assert code == 3 and "at least 3 of 10 images cannot be used" in errors
    code, errors = prepare(folder, tmp_path / "out", "--max-bad", "3")
    assert code == 0 and "3 left out" in errors, errors
    data = PreparedData.open(tmp_path / "out")
    pixels = data.images(__import__("torch").arange(len(data))).float().mean(dim=(2, 3))
    for name, colour in zip(data.file_names, pixels.tolist(), strict=True):
        assert np.allclose(colour, [200, 40, 60], atol=12), name
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "empty" in json.dumps(report) and "not an image" in json.dumps(report)


def test_values_as_large_as_they_may_be_are_packed_and_standardised(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for n in range(12):
        photo(folder / f"{n}.png")
    values = [1e30, -1e30, 1e-30, 0.0] * 3
    rows = "".join(f"{n}.png,{v!r},7,{('train', 'valid', 'test')[n // 4]}\n" for n, v in enumerate(values))
    (folder / "metadata.csv").write_text(f"file_name,Huge,Same,split\n{rows}")
    code, errors = prepare(folder, tmp_path / "out")
    assert code == 0, errors
    data = PreparedData.open(tmp_path / "out")
    shift, scale = data.attributes[0].shift_and_scale
    standard_N = (data.column("Huge") - shift) / scale
    assert standard_N.isfinite().all() and 1 < float(standard_N.abs().max()) < 3


@pytest.mark.usefixtures("in_full")
def test_names_of_attributes_reach_reports_escaped_and_unread_as_formulas(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    names = ["<script>alert(1)</script>", "$\\frac{$", "{{7*7}}", "a\\b", "50%_{x}^y", "=1+1", "日本語"]
    cells = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4
    lines = []
    for n, split in enumerate(cells):
        photo(folder / f"{n}<b>.png")
        lines.append(",".join([f"{n}<b>.png", split, *(str((n + k) % 2) for k in range(len(names)))]))
    header = ",".join(["file_name", "split", *(f'"{name}"' for name in names)])
    (folder / "<b>.png").write_text("no picture")
    (folder / "metadata.csv").write_text("\n".join([header, *lines, f"<b>.png,train{',1' * len(names)}"]))
    code, errors = prepare(
        folder, tmp_path / "out", "--max-bad", "1", "--treatment", names[1], "--covariate", names[0]
    )
    assert code == 0, errors
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{7*7}}" in page and "<b>.png" not in page
