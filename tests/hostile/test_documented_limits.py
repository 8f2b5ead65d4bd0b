"""The limits that docs name are those of the code; what just fits is taken, and one more is refused."""

import math
import re
from pathlib import Path

import pytest

from civae_core import attributes, bounded_yaml, file_names, reading
from civae_core.assignments import MOST_INTERVENTIONS
from civae_core.config import ConfigError, load_config, problems
from civae_core.config import load as loading
from civae_core.config import yaml as config_yaml
from civae_core.data import images, report, tables
from civae_core.data.tables import read_table
from civae_core.errors import DataError
from civae_core.serve.limits import Limits

DOCS = Path(__file__).parents[2] / "docs"
PAGE = Limits()

# What stands on a page, with `#` for each number, and what the code has for them.
LIMITS: list[tuple[str, str, tuple[float, ...]]] = [
    (
        "hostile-input.md",
        "at most # KiB, # levels, # digits a number",
        (loading.MOST_BYTES / 2**10, bounded_yaml.DEEPEST, config_yaml._LONGEST_NUMBER),
    ),
    ("hostile-input.md", "at most # unknown keys or wrong values", (problems.MOST_PROBLEMS,)),
    ("hostile-input.md", "at most # interventions", (MOST_INTERVENTIONS,)),
    (
        "hostile-input.md",
        "lines up to # MiB, # columns, names up to # visible characters, values up to 2^#",
        (
            tables.LONGEST_LINE / 2**20,
            tables.MOST_COLUMNS,
            attributes.LONGEST_NAME,
            math.log2(attributes.LARGEST),
        ),
    ),
    ("own-data.md", "up to # columns of attributes", (tables.MOST_COLUMNS,)),
    ("own-data.md", "more than # binary ones", (report.MOST_IN_HEAT_MAP,)),
    ("file-formats.md", "(of at most # attributes)", (report.MOST_IN_HEAT_MAP,)),
    (
        "hostile-input.md",
        "# million pixels and # MB at most",
        (images.MAX_PIXELS / 1e6, images.MAX_BYTES // 10**6),
    ),
    (
        "hostile-input.md",
        "at most # MiB (reports # MiB)",
        (reading.MOST_JSON_BYTES / 2**20, file_names.MOST_REPORT_BYTES / 2**20),
    ),
    (
        "hostile-input.md",
        "# MB and # million pixels a photograph",
        (PAGE.upload_bytes / 2**20, PAGE.upload_pixels / 1e6),
    ),
    (
        "serve.md",
        "# MB (`--max-upload`), # million pixels",
        (PAGE.upload_bytes / 2**20, PAGE.upload_pixels / 1e6),
    ),
    (
        "serve.md",
        "# s in all, # s without a byte; # at once",
        (PAGE.upload_seconds, PAGE.silence_seconds, PAGE.uploads_at_once),
    ),
    (
        "serve.md",
        "# a second on average, # at once; an upload counts as #",
        (PAGE.requests_per_second, PAGE.burst, PAGE.upload_cost),
    ),
    ("serve.md", "| #, #; further ones", (PAGE.connections, PAGE.waiting)),
    ("serve.md", "| # and # MB with all that models", (PAGE.photos, PAGE.photo_bytes / 2**20)),
    ("serve.md", "each for # minutes after the last question", (PAGE.photo_seconds / 60,)),
]


@pytest.mark.parametrize(("page", "said", "limits"), LIMITS, ids=[said for _, said, _ in LIMITS])
def test_the_numbers_of_the_docs_are_those_of_the_code(
    page: str, said: str, limits: tuple[float, ...]
) -> None:
    pattern = re.escape(said).replace(r"\#", r"([\d,]*\d)")
    (found,) = re.finditer(pattern, (DOCS / page).read_text(encoding="utf-8"))
    assert [float(number.replace(",", "")) for number in found.groups()] == list(limits)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "metadata.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_number_of_300_characters_is_read_and_of_301_too_long(tmp_path: Path) -> None:
    file, stated = tmp_path / "train.yml", ["data.path=faces", "data.treatment=Young"]
    file.write_text(f"train:\n  lr: {'0.1'.ljust(300, '0')}\n")
    assert load_config([file], stated).train.lr == 0.1
    file.write_text(f"train:\n  lr: {'0.1'.ljust(301, '0')}\n")
    with pytest.raises(ConfigError, match="a number of 301 characters is too long"):
        load_config([file], stated)


def test_a_value_of_2_to_the_100_is_read_and_no_larger_one(tmp_path: Path) -> None:
    for sign in (1, -1):
        read = read_table(table(tmp_path, f"file_name,Age\na.jpg,{sign * 2**100}\nb.jpg,1\n"))
        assert read.values_NA[:, 0].tolist() == [sign * 2.0**100, 1.0]
        beyond = sign * math.nextafter(2.0**100, math.inf)
        with pytest.raises(DataError, match=":2: Age is infinite or too large"):
            read_table(table(tmp_path, f"file_name,Age\na.jpg,{beyond!r}\nb.jpg,1\n"))


def test_a_line_of_a_mebibyte_is_read_and_no_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    row = '{"file_name": "a.jpg", "Age": 1}'
    path.write_text(row.ljust(2**20 - 1) + "\n")  # its end counts, too
    assert read_table(path).values_NA[:, 0].tolist() == [1.0]
    path.write_text(row.ljust(2**20) + "\n")
    with pytest.raises(DataError, match=":1: the line is longer than 1,048,576 characters"):
        read_table(path)


def test_a_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    cell = " " * (2**20 - 100) + "1"
    assert read_table(table(tmp_path, f"file_name,Age\na.jpg,{cell}\n")).values_NA[:, 0].tolist() == [1.0]
    long = "file_name,Age\na.jpg," + "\n".join(['"' + " " * 2**19, " " * 2**19, ' "']) + "\n"
    with pytest.raises(DataError, match="field larger than field limit"):
        read_table(table(tmp_path, long))


def test_1_000_columns_are_read_and_no_more(tmp_path: Path) -> None:
    for count in (1_000, 1_001):
        names = ",".join(f"c{n}" for n in range(count))
        path = table(tmp_path, f"file_name,{names}\na.jpg{',1' * count}\n")
        if count == 1_000:
            assert len(read_table(path).names) == count
        else:
            with pytest.raises(DataError, match="1,001 columns are too many"):
                read_table(path)
