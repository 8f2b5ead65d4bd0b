"""Configs, --set, --treat, --attr and selections, whatever is typed: a value, or an error with exit code 2."""

import string
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mutations import NASTY, NUMBERS, WORDS, damaged
from survival import survives

from civae_core.assignments import parse_assignment, parse_treatments, parse_values
from civae_core.attributes import Attribute
from civae_core.config import Config, ConfigError, config_template, convert_file, dump_config, load_config
from civae_core.config.problems import known_keys
from civae_core.config.yaml import dotted
from civae_core.data.selection import parse_selection
from civae_core.errors import UsageError

KEYS = sorted(dotted(path) for path in known_keys())
VALID = ("data.path=faces", "data.treatment=Young")
ORIGINAL = b"""\
norm_type: bn
nepoch: 10
image_size: 64
ch_multi: 32
num_res_blocks: 1
latent_channels: 128
save_interval: 3000
block_widths: 1, 2, 4, 8
lr: 1e-4
kl_scale: 1.0e-4
deep_model: 0
treatment: {Young: 39}
model_labels: {Male: 20, Smiling: 31}
"""

yaml_text = st.one_of(
    NUMBERS,
    WORDS,
    st.text(alphabet=string.printable, max_size=30),
    st.text(alphabet="[]{},:&*!|>'\"#%@`-? \nab01", max_size=40),
    st.integers(1, 3000).map(lambda depth: "[" * depth),
    st.integers(1, 300).map(lambda depth: "{a: " * depth + "}" * depth),
    st.integers(1, 5000).map(lambda digits: "0x" + "f" * digits),
)


def read_bytes(data: bytes, file: Path) -> Config | None:
    file.write_bytes(data)
    return survives("config file", lambda: load_config([file], VALID), may_raise=ConfigError)


@given(data=st.one_of(damaged(config_template().encode()), st.binary(max_size=60)))
def test_a_damaged_config_file(tmp_path: Path, data: bytes) -> None:
    config = read_bytes(data, tmp_path / "train.yml")
    if config is not None:
        again = tmp_path / "again.yml"
        again.write_text(dump_config(config), encoding="utf-8")
        assert load_config([again]) == config, "what was read can be written and read again"


@given(key=st.sampled_from(KEYS), text=yaml_text)
def test_any_value_under_a_known_key_of_a_file(tmp_path: Path, key: str, text: str) -> None:
    section, _, name = key.rpartition(".")
    line = f"{name}: {text}\n"
    read_bytes(
        (f"{section}:\n  {line}" if section else line).encode("utf-8", "replace"), tmp_path / "train.yml"
    )


@given(key=st.one_of(st.sampled_from(KEYS), st.text(max_size=20), st.just("a." * 3000 + "b")), text=yaml_text)
def test_any_set(key: str, text: str) -> None:
    survives("--set", lambda: load_config([], [*VALID, f"{key}={text}"]), may_raise=ConfigError)


@given(texts=st.lists(st.text(max_size=30), max_size=4))
def test_any_text_after_set(texts: list[str]) -> None:
    survives("--set", lambda: load_config([], [*VALID, *texts]), may_raise=ConfigError)


@given(data=damaged(ORIGINAL))
def test_a_damaged_config_of_the_original_project(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "old.yml"
    file.write_bytes(data)
    converted = survives("config convert", lambda: convert_file(file), may_raise=ConfigError)
    if converted is not None:
        file.write_text(converted.text, encoding="utf-8")
        assert load_config([file]) == converted.config


@given(
    key=st.sampled_from([line.split(b":")[0].decode() for line in ORIGINAL.splitlines()]),
    text=st.one_of(yaml_text, NUMBERS.map(lambda n: f"[{n}, 1]"), NUMBERS.map(lambda n: f"{{Young: {n}}}")),
)
def test_any_value_in_a_config_of_the_original_project(tmp_path: Path, key: str, text: str) -> None:
    lines = [line for line in ORIGINAL.decode().splitlines() if not line.startswith(f"{key}:")]
    file = tmp_path / "old.yml"
    file.write_bytes("\n".join([*lines, f"{key}: {text}"]).encode("utf-8", "replace"))
    survives("config convert", lambda: convert_file(file), may_raise=ConfigError)


# Assignments.

TREATMENTS = [Attribute("Young", "binary"), Attribute("Age", "continuous", 0.0, 90.0, 40.0, 12.0)]
assignment = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}={}".format, st.sampled_from(["Young", "Age", "", "young", "Yuong"]), st.one_of(NUMBERS, NASTY)
    ),
    st.builds("Age={}:{}:{}".format, NUMBERS, NUMBERS, st.one_of(NUMBERS, st.integers(-2, 1200).map(str))),
    st.builds("Young={}".format, st.sampled_from(["flip", "Flip", "flipp", "::", "0:1", "0:1:2:3", "1:"])),
)


@given(texts=st.lists(assignment, min_size=1, max_size=4))
def test_any_treat(texts: list[str]) -> None:
    found = survives(
        "--treat", lambda: parse_treatments(texts, ["Young", "Age"], ["Age"]), may_raise=UsageError
    )
    for intervention in found or []:
        for name, value in intervention.items():
            assert name in ("Young", "Age")
            assert value == "flip" or abs(value) <= 3.5e38, "a number that a model can hold"
    assert found is None or len(found) <= 1000


@given(texts=st.lists(assignment, min_size=1, max_size=3))
def test_any_attr(texts: list[str]) -> None:
    found = survives("--attr", lambda: parse_values(texts, ["Young", "Age"]), may_raise=UsageError)
    assert found is None or all(abs(value) <= 3.5e38 for value in found.values())


@given(text=assignment)
def test_any_assignment_to_an_unknown_name(text: str) -> None:
    survives("--treat", lambda: parse_assignment(text), may_raise=UsageError)


@given(
    text=st.one_of(
        st.text(max_size=20),
        st.builds("faces#test[{}:{}]".format, NUMBERS, NUMBERS),
        NASTY.map("{}#test".format),
    )
)
def test_any_selection(text: str) -> None:
    survives("selection", lambda: parse_selection(text), may_raise=UsageError)
