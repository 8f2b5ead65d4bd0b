"""Configs of a size that nobody writes: read in bounded time, or refused by their size."""

import os
from pathlib import Path

import pytest
from survival import survives

from civae_core.config import ConfigError, convert_file, load_config
from civae_core.config.load import MOST_BYTES
from civae_core.errors import CivaeError

VALID = ("data.path=faces", "data.treatment=Young")


def refusal(file: Path, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config([file], [*VALID, *sets])
    return caught.value.message


def test_a_file_beyond_the_limit_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "train.yml"
    with file.open("wb") as opened:
        opened.truncate(MOST_BYTES + 1)
    assert refusal(file) == f"{file}: cannot read it: larger than the 262,144 bytes that are allowed"


@pytest.mark.parametrize("section", ["", "train:\n"])
def test_tens_of_thousands_of_unknown_keys_are_told_in_seconds(tmp_path: Path, section: str) -> None:
    file = tmp_path / "train.yml"
    indent = "  " if section else ""
    file.write_text(section + "".join(f"{indent}k{i}: 0\n" for i in range(20_000)))
    message = survives("config file", lambda: refusal(file, "train.lr=1", "k1.a=2"))
    assert message is not None and "unknown key" in message and "more" in message
    assert message.count("\n") < 300


def test_repeated_keys_by_the_thousand_are_told_in_seconds(tmp_path: Path) -> None:
    file = tmp_path / "train.yml"
    file.write_text("seed: 0\n" * 20_000)
    message = survives("config file", lambda: refusal(file))
    assert message is not None and message.startswith("20000 problems in the config\n")
    assert message.count("\n") < 300


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 30_000, "- " * 60_000, "? " * 60_000, "!!set " * 9_000]
)
def test_nesting_has_an_end(tmp_path: Path, text: str) -> None:
    file = tmp_path / "train.yml"
    file.write_text("model:\n  stages: " + text)
    assert survives("config file", lambda: refusal(file)) is not None


def test_aliases_cannot_multiply(tmp_path: Path) -> None:
    file = tmp_path / "train.yml"
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    file.write_text("\n".join(["a0: &a0 [lol]", *levels]))
    assert "aliases (*name) are not supported" in refusal(file)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [touch {}]", "!!python/name:os.system", "!x y"]
)
def test_tags_make_nothing(tmp_path: Path, tag: str) -> None:
    file, made = tmp_path / "train.yml", tmp_path / "made"
    file.write_text(f"data:\n  path: {tag.format(made)}\n")
    assert f"{file}:2:9: data.path: the tag " in refusal(file)
    assert not made.exists()


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("model.latent=1000000000", "at most 65536"),
        ("model.width=1000000", "at most 4096"),
        ("model.blocks=100000", "at most 64"),
        ("model.stages=[1000000]", "at most 256"),
        ("model.stages=[1,1,1,1,1,1,1,1,1,1,1]", "at most 10 items"),
        ("train.batch_size=0x1000000000", "at most 1048576"),
        ("train.seed=99999999999999999999", "less than 9223372036854775808"),
        ("train.images=1000000000000000000000000000000", "at most 1000000000000000"),
        ("train.images=" + "9" * 5000, "a number of 5,000 characters is too long"),
        ("train.lr=0x" + "f" * 256, "a number beyond 1.8e+308 is too large"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(setting: str, limit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([], [*VALID, setting])
    assert limit in caught.value.message and caught.value.exit_code == 2


def test_a_number_beyond_a_double_is_refused_in_a_config_of_the_original_project(tmp_path: Path) -> None:
    file = tmp_path / "old.yml"
    file.write_text("lr: 0x" + "f" * 256, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"old\.yml:1:5: lr: a number beyond 1\.8e\+308 is too large"):
        convert_file(file)


def test_what_is_no_file_is_no_config(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path)
    if os.path.exists("/dev/zero"):  # noqa: PTH110
        assert "larger than" in refusal(Path("/dev/zero"))


def test_errors_cannot_command_the_terminal() -> None:
    error = CivaeError("a\x1b[2Jb\r\x07 é β 😀\nsecond", hint="\x9b1m")
    assert error.message == "a\\x1b[2Jb\\r\\x07 é β 😀\nsecond" and error.hint == "\\x9b1m"
    assert len(CivaeError("x" * 10**6).message) < 700
