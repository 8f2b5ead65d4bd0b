"""Scorers' files from strangers: what a card says is checked before `info` shows it or `evaluate` believes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, json_values, replaced
from survival import survives
from typer.testing import CliRunner

from civae_cli.app import app
from civae_cli.info import card as shown
from civae_core.attributes import Attribute
from civae_core.errors import DataError
from civae_core.inspection import inspect
from civae_core.yardstick import Yardstick, load_yardstick
from civae_core.yardstick.instrument import Networks, YardstickCard
from civae_core.yardstick.stored import save_yardstick
from civae_core.yardstick.table import quality_table

KEY = "civae_yardstick"
QUALITY = {"Young": {"accuracy": 0.9, "auc": 0.95, "worst_group_accuracy": 0.8, "n": 100.0}}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer that never learned; its file is as any other's."""
    age = Attribute("Age", "continuous", 1.0, 90.0, 40.0, 20.0)
    card = YardstickCard(
        attributes=(Attribute("Young", "binary", 0.0, 1.0, 0.5, 0.5), age), size=32, channels=3,
        data={"name": "faces", "fingerprint": "0" * 64},
        roles={"treatments": ["Young"], "covariates": [], "descendants": [], "held_out": ["Age"]},
        images=64, seed=0,
        photos=QUALITY | {"Age": {"r2": 0.5, "mae": 5.0, "n": 90.0}},
        blurred=QUALITY, reconstructions={"ours": QUALITY},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("scorers") / "scorer.safetensors"
    save_yardstick(Yardstick(Networks(32, 3, 2).eval(), card), path)
    return path


def parts(data: bytes) -> tuple[Any, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_card(before: bytes, text: str) -> bytes:
    header, body = parts(before)
    header["__metadata__"][KEY] = text
    return with_header(header, body)


def use(path: Path) -> None:
    """What `info`, `train-scorer` and `evaluate` do with a scorer's file."""
    yardstick = load_yardstick(path)
    card = yardstick.card
    facts = inspect(path)
    json.dumps(facts, allow_nan=False)
    if facts["kind"] == "scorer":
        assert shown(facts).splitlines()
    assert quality_table(card).row_count == len(card.attributes)
    assert card.data["name"] and card.data["fingerprint"] and card.roles["treatments"] is not None
    y_BCHW = torch.zeros(1, card.channels, card.size, card.size)
    assert yardstick.read(y_BCHW).outputs_BA.shape == (1, len(yardstick.attributes))
    assert [yardstick.index(a.name) for a in card.attributes] == list(range(len(card.attributes)))


def spoilt(file: Path, make: Callable[[bytes], bytes], target: str) -> None:
    before = file.read_bytes()
    try:
        file.write_bytes(make(before))
        survives(target, lambda: use(file), may_raise=DataError)
    finally:
        file.write_bytes(before)


@given(data=st.data())
def test_a_scorer_with_another_card(scorer: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        card = json.loads(parts(before)[0]["__metadata__"][KEY])
        return with_card(before, json.dumps(data.draw(replaced(card))))

    spoilt(scorer, change, "scorer card")


@given(
    text=st.one_of(
        json_values().map(json.dumps), st.text(max_size=20), st.integers(1, 10**5).map(lambda n: "[" * n)
    )
)
def test_a_scorer_with_any_card(scorer: Path, text: str) -> None:
    spoilt(scorer, lambda before: with_card(before, text), "scorer card")


@given(data=st.data())
def test_a_damaged_scorer_file(scorer: Path, data: st.DataObject) -> None:
    spoilt(scorer, lambda before: data.draw(damaged(before)), "scorer file")


@given(data=st.data())
def test_a_scorer_file_with_another_header(scorer: Path, data: st.DataObject) -> None:
    def change(before: bytes) -> bytes:
        header, body = parts(before)
        return with_header(data.draw(replaced(header)), body)

    spoilt(scorer, change, "scorer file")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 10**9),
        ("size", 0),
        ("size", True),
        ("channels", 2),
        ("images", -1),
        ("seed", "0"),
        ("data", []),
        ("data", {"name": "faces"}),
        ("data", {"name": 1, "fingerprint": "0"}),
        ("roles", {"treatments": "Young", "covariates": [], "descendants": [], "held_out": []}),
        ("roles", {"treatments": [["Young"]], "covariates": [], "descendants": [], "held_out": []}),
        ("roles", {}),
        ("photos", {"Young": {"accuracy": "<b>"}}),
        ("photos", {"Young": {"accuracy": float("nan")}}),
        ("photos", {"Young": [1]}),
        ("reconstructions", {"a": {"Young": {"accuracy": 0.5}}}),
        ("reconstructions", {"a": {"Young": 1}}),
        ("attributes", []),
        ("attributes", [Attribute("Young", "binary", 0.0, 1.0).to_dict()] * 2),
    ],
)
def test_a_card_that_cannot_be_true_is_refused_by_name(scorer: Path, key: str, value: Any) -> None:
    before = scorer.read_bytes()
    card = json.loads(parts(before)[0]["__metadata__"][KEY])
    try:
        scorer.write_bytes(with_card(before, json.dumps(card | {key: value})))
        with pytest.raises(DataError, match=r"scorer\.safetensors: its metadata is damaged"):
            survives("scorer card", lambda: use(scorer), may_raise=())
        result = CliRunner().invoke(app, ["info", str(scorer)])
        assert result.exit_code == 3 and "scorer.safetensors" in result.stderr
    finally:
        scorer.write_bytes(before)


def test_names_on_a_card_do_not_command_the_terminal(scorer: Path) -> None:
    before = scorer.read_bytes()
    card = json.loads(parts(before)[0]["__metadata__"][KEY])
    nasty = {
        "data": {"name": "a\x1b[31mb", "fingerprint": "\x07" * 64},
        "reconstructions": {"\x1b[2J": QUALITY},
    }
    try:
        scorer.write_bytes(with_card(before, json.dumps(card | nasty)))
        use(scorer)
        result = CliRunner().invoke(app, ["info", str(scorer)])
    finally:
        scorer.write_bytes(before)
    assert result.exit_code == 0 and r"a\x1b[31mb" in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_the_unspoilt_scorer_is_read(scorer: Path) -> None:
    use(scorer)
    assert CliRunner().invoke(app, ["info", str(scorer)]).exit_code == 0
