"""Configs as text load back to what they were."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from civae_core.config import Config, DataConfig, config_schema, config_template, dump_config, load_config


def load_text(folder: Path, text: str) -> Config:
    path = folder / "dumped.yml"
    path.write_text(text, encoding="utf-8")
    return load_config([path])


def test_round_trip_keeps_awkward_values(tmp_path: Path) -> None:
    config = load_config(
        [],
        [
            "data.path='1e3'",
            "data.treatment=no",
            "data.covariates=['0o14', 'a: b', ü, 'true']",
            "train.lr=1e-5",
        ],
    )
    text = dump_config(config)
    assert load_text(tmp_path, text) == config
    assert "lr: 1e-05" in text
    assert yaml.safe_load(text)["data"]["treatment"] == ["no"], "other YAML readers must not see a boolean"


def test_sections_keep_the_schemas_order() -> None:
    text = dump_config(Config(data=DataConfig(path="d", treatment=["Young"])))
    heads = [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert heads == list(Config.model_fields)


def test_the_template_loads_and_holds_the_defaults(tmp_path: Path) -> None:
    config = load_text(tmp_path, config_template())
    assert config == Config(data=config.data)
    assert "# Dimensions of z." in config_template()


def test_the_schema_describes_every_key_and_allows_a_single_name() -> None:
    schema = config_schema()
    sections = schema["$defs"]
    for name in ("DataConfig", "ModelConfig", "LossConfig", "TrainConfig"):
        for key, entry in sections[name]["properties"].items():
            assert entry.get("description"), f"{name}.{key} has no description"
    assert {"type": "string"} in sections["DataConfig"]["properties"]["treatment"]["anyOf"]


def test_the_template_lists_words_only_where_nothing_else_is_allowed() -> None:
    """Keys such as `accumulate`, `channels_last` and `compile` take numbers or booleans besides their words."""
    about = {
        line.strip("# ").split(":")[0]: comments
        for comments, line in _commented(config_template().splitlines())
    }
    assert about["norm"].endswith("One of: group, batch, none.")
    for key in ("accumulate", "channels_last", "compile", "trackers", "scales"):
        assert about[key] and "One of:" not in about[key], key


def _commented(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each key's line of a template whose keys are all at their default, with the comment above it."""
    comments: list[str] = []
    for line in map(str.strip, lines):
        if line.startswith("#"):
            comments.append(line.strip("# "))
        elif line:
            yield " ".join(comments), line
        if not line.startswith("#"):
            comments = []


def test_one_line_makes_the_template_a_plain_cvae(tmp_path: Path) -> None:
    file = tmp_path / "train.yml"
    file.write_text(config_template(), encoding="utf-8")
    plain = load_config([file], ["objective=cvae"])
    assert (plain.model.prior, plain.loss.beta, plain.loss.weights) == ("standard", 1.0, "none")
    ours = load_config([file])
    assert (ours.model.prior, ours.loss.beta, ours.loss.weights) == ("xt", 5.0, "none")
