"""The strict loader: precedence, merging, positions, and every problem at once."""

from pathlib import Path

import pytest

from civae_core.config import ConfigError, load_config
from civae_core.errors import UsageError

MINIMAL = "data:\n  path: d\n  treatment: Young\n"


def write(folder: Path, text: str, name: str = "train.yml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *sets: str) -> list[str]:
    """The problem lines of a config, with the folder cut off."""
    with pytest.raises(ConfigError) as caught:
        load_config([write(folder, text)], sets)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_defaults_files_sets_and_flags_in_that_order(tmp_path: Path) -> None:
    first = write(tmp_path, MINIMAL + "train: {lr: 1e-2, batch_size: 8, seed: 1}\n", "a.yml")
    second = write(tmp_path, "train: {batch_size: 16, seed: 2}\n", "b.yml")
    config = load_config(
        [first, second], ["train.seed=3", "train.keep=7"], {"train.seed": 4, "train.keep": None}
    )
    assert config.train.lr == 0.01
    assert config.train.batch_size == 16
    assert config.train.seed == 4
    assert config.train.keep == 7
    assert config.train.weight_decay == 0.01


def test_lists_are_replaced_and_one_name_stands_for_a_list(tmp_path: Path) -> None:
    base = write(tmp_path, MINIMAL + "  covariates: [Male, Smiling]\n")
    config = load_config([base], ["data.covariates=[Blond_Hair]"])
    assert config.data.covariates == ["Blond_Hair"]
    assert config.data.treatment == ["Young"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E+2", 100.0), (".5", 0.5), ("3", 3.0), ("1_000", 1000.0)],
)
def test_numbers_are_read_as_yaml_1_2_does(tmp_path: Path, text: str, value: float) -> None:
    assert load_config([write(tmp_path, MINIMAL)], [f"train.lr={text}"]).train.lr == value


@pytest.mark.parametrize("word", ["no", "on", "off", "yes", "y", "1:30", "2024-01-02"])
def test_words_that_yaml_1_1_would_convert_stay_words(tmp_path: Path, word: str) -> None:
    config = load_config([write(tmp_path, MINIMAL)], [f"data.treatment={word}"])
    assert config.data.treatment == [word]


def test_unknown_key_names_the_place_and_the_nearest_key(tmp_path: Path) -> None:
    assert problems(tmp_path, MINIMAL + "train:\n  lrr: 1\n") == [
        "train.yml:5:3: train.lrr: unknown key (did you mean train.lr?)"
    ]
    assert problems(tmp_path, MINIMAL, "train.lrr=1") == [
        "--set train.lrr=1: train.lrr: unknown key (did you mean train.lr?)"
    ]


def test_a_key_of_another_section_is_suggested(tmp_path: Path) -> None:
    assert problems(tmp_path, MINIMAL + "lr: 1\n") == [
        "train.yml:4:1: lr: unknown key (did you mean train.lr?)"
    ]


def test_everything_wrong_is_reported_at_once_in_reading_order(tmp_path: Path) -> None:
    text = (
        "objective: cvae\n"
        "data:\n"
        "  path: d\n"
        "  treatment: [Young]\n"
        "  covariates: [Male, Young]\n"
        "train:\n"
        "  lr: fast\n"
        "  images: 1e6\n"
        "  lr: 3\n"
        "  keep: 0\n"
        "model: {prior: x, norm: bach, predictor: yes, stages: [1, x]}\n"
    )
    assert problems(tmp_path, text, "train.seed=-1") == [
        "train.yml:5:22: data: 'Young' cannot be both in treatment and in covariates",
        "train.yml:7:7: train.lr: should be a number, not 'fast'",
        "train.yml:8:11: train.images: should be a whole number, not 1000000.0 (write 1000000)",
        "train.yml:9:3: train.lr: repeated key (first at line 7)",
        "train.yml:10:9: train.keep: should be greater than 0, not 0",
        "train.yml:11:9: objective 'cvae' is defined with the prior N(0,I): model.prior cannot be 'x'",
        (
            "train.yml:11:25: model.norm: should be one of 'group', 'batch' or 'none', not 'bach'"
            " (did you mean batch?)"
        ),
        "train.yml:11:42: model.predictor: should be true or false, not 'yes'",
        "train.yml:11:59: model.stages[1]: should be a whole number, not 'x'",
        "--set train.seed=-1: train.seed: should be at least 0, not -1",
    ]


def test_of_settings_that_do_not_go_together_each_conflict_is_reported(tmp_path: Path) -> None:
    text = (
        "objective: cvae\n"
        "data: {path: d, treatment: [Young, Male], covariates: [Young, Male]}\n"
        "model: {prior: xt, decoder: direct, place_latents: 99, scales: [2, 4]}\n"
        "loss: {guidance: 1, hsic: 2}\n"
        "train: {accumulate: 7, nope: 3}\n"
    )
    assert problems(tmp_path, text) == [
        "train.yml:2:56: data: 'Young' cannot be both in treatment and in covariates",
        "train.yml:2:63: data: 'Male' cannot be both in treatment and in covariates",
        "train.yml:3:9: objective 'cvae' is defined with the prior N(0,I): model.prior cannot be 'xt'",
        "train.yml:3:20: model.place_latents: only the layers of model.decoder 'layered' have places",
        "train.yml:3:37: model.place_latents 99: leaves none of model.latent 64 for looks",
        "train.yml:3:56: model.scales [2, 4]: must begin with 1, the vector",
        "train.yml:4:8: objective 'cvae' is a baseline: loss.guidance cannot be on",
        "train.yml:4:21: objective 'cvae' is a baseline: loss.hsic cannot be on",
        "train.yml:5:9: train.accumulate: 7 equal parts cannot be made of 64 images",
        "train.yml:5:24: train.nope: unknown key",
    ]


def test_required_keys_are_asked_for() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([])
    assert caught.value.problems == (
        "data.path: missing, and it has no default",
        "data.treatment: missing, and it has no default",
    )
    assert caught.value.hint is not None
    assert "--set data.path" in caught.value.hint
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n- b\n", "train.yml:1:1: the top level should be sections such as `data:` and `train:`"),
        ("data: [1\n", "train.yml:2:1: expected ',' or ']', but got '<stream end>'"),
        ("data: &a {path: x}\ntrain: *a\n", "train.yml:2:8: aliases (*name) are not supported"),
        ("data: !!python/object:os.system {}\n", None),
        ("data:\n  path: \x00\n", "train.yml:2:9: the character U+0000 is not allowed in YAML"),
        ("data: " + "[" * 5000, None),
        ("train: 5\n---\ntrain: 6\n", None),
    ],
)
def test_unusable_yaml_is_one_clear_line(tmp_path: Path, text: str, line: str | None) -> None:
    found = problems(tmp_path, text)
    assert all(entry.startswith("train.yml") for entry in found)
    if line is not None:
        assert found == [line]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yml"
    latin.write_bytes("data:\n  path: é".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / "absent.yml", latin, tmp_path])
    absent, not_text, folder = caught.value.problems
    assert absent.endswith("absent.yml: cannot read it: No such file or directory")
    assert not_text.endswith("latin.yml:2:9: not UTF-8 text (byte 0xe9)")
    assert folder.endswith("cannot read it: Is a directory")


@pytest.mark.parametrize("text", ["", "train.lr", "=3", "train..lr=3", ".=1"])
def test_a_malformed_set_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, MINIMAL, text) == [f"--set {text}: needs the form section.key=value"]


def test_an_empty_file_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    marked = tmp_path / "bom.yml"
    marked.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config([write(tmp_path, "# nothing\n"), marked]).data.path == "d"


def test_the_original_projects_file_is_pointed_to_the_converter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([write(tmp_path, "kl_scale: 0.0001\nnepoch: 10\n")])
    assert caught.value.hint is not None
    assert "civae config convert" in caught.value.hint


def test_a_section_can_be_overlaid_where_a_scalar_stood(tmp_path: Path) -> None:
    config = load_config([write(tmp_path, MINIMAL + "train: 5\n")], ["train={lr: 0.5}"])
    assert config.train.lr == 0.5
