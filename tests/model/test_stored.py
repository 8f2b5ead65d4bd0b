"""A model file says everything that using it needs, and what is wrong with it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_cards import with_card
from safetensors.torch import save_file

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import Config, ModelConfig
from civae_core.data import PreparedData
from civae_core.errors import DataError, UsageError
from civae_core.model import IntactVAE
from civae_core.model.stored import (
    ModelCard,
    StoredModel,
    load_model,
    read_card,
    save_model,
)
from civae_core.model_paths import find_model_file, newest_run

LAST = "checkpoints/last/model.safetensors"


@pytest.fixture
def card(roles: AttributeRoles, make_config: Callable[..., Config]) -> ModelCard:
    return ModelCard(
        config=make_config(model={"prior": "xt"}),
        roles=roles,
        preprocessing={"size": 16, "channels": 3, "crop": 150, "crop_of": 178},
        images_seen=1200,
        data={"name": "faces", "path": "data", "fingerprint": "ab" * 32},
        subjects=[[1.0, 0.0, 41.5]],
    )


@pytest.fixture
def file(tmp_path: Path, card: ModelCard, make_model: Callable[..., IntactVAE]) -> Path:
    save_model(make_model(perturbed=True), card, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_card_comes_back_as_it_was(file: Path, card: ModelCard) -> None:
    assert read_card(file) == card


def test_the_weights_come_back_ready_for_use(file: Path, make_model: Callable[..., IntactVAE]) -> None:
    stored = load_model(file)
    assert isinstance(stored, StoredModel)
    assert stored.path == file
    expected = make_model(perturbed=True).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in stored.model.state_dict().items())
    assert not stored.model.training
    assert not any(parameter.requires_grad for parameter in stored.model.parameters())


@pytest.mark.parametrize("place", ["", "checkpoints/last", "checkpoints/best", LAST])
def test_a_model_is_named_by_run_checkpoint_or_file(trained: Path, place: str) -> None:
    stored = load_model(trained / place)
    assert stored.card.images_seen == 512
    assert [a.name for a in stored.card.roles.inputs] == ["Young", "Male", "Skin_Tone"]
    assert stored.card.preprocessing["size"] == 32
    assert len(stored.card.subjects) == 240


def test_examples_of_training_subjects_are_kept_to_the_last_digit(trained: Path, faces: PreparedData) -> None:
    table_NA = torch.stack([faces.column(name) for name in ("Young", "Male", "Skin_Tone")], dim=1)
    assert torch.equal(torch.tensor(load_model(trained).card.subjects), table_NA[faces.rows("train")])


def test_a_place_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such run, checkpoint or model file"):
        find_model_file(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"contains no model.safetensors and no checkpoints/last"):
        find_model_file(tmp_path)


def test_the_newest_run_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIVAE_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"--model is not given, \$CIVAE_MODEL is not set and runs/ contains"
    ):
        newest_run()
    for age, name in enumerate(("newest", "older", "oldest")):
        file = tmp_path / "runs" / name / LAST
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert newest_run() == Path("runs/newest")
    monkeypatch.setenv("CIVAE_MODEL", "elsewhere")
    with pytest.raises(
        UsageError, match=r"^\$CIVAE_MODEL elsewhere: no such run, checkpoint or model file"
    ) as caught:
        newest_run()
    assert "name a run with --model" in (caught.value.hint or "")
    (tmp_path / "elsewhere").mkdir()
    assert newest_run() == Path("elsewhere")


@pytest.mark.parametrize("length", [0, 7, 500, -1])
def test_a_truncated_file_is_named(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match=r"model.safetensors: not a readable safetensors file") as caught:
        load_model(file)
    assert caught.value.exit_code == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(DataError, match=r"pickle.pt: not a readable safetensors file"):
        load_model(tmp_path / "pickle.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(DataError, match=r"foreign.safetensors: a safetensors file, but not a civae model"):
        load_model(tmp_path / "foreign.safetensors")


def test_a_newer_format_asks_for_a_newer_version(file: Path) -> None:
    with_card(file, lambda values: values.update(format=6))
    with pytest.raises(DataError, match="written in format 6, this version reads up to 5") as caught:
        load_model(file)
    assert caught.value.hint == "update civae"


def test_a_model_of_the_first_format_is_read_as_what_it_was(
    make_model: Callable[..., IntactVAE], make_config: Callable[..., Config], file: Path, tmp_path: Path
) -> None:
    """Format 1 had no layers and no masks, and its cards do not mention them."""
    old = tmp_path / "old.safetensors"
    card = load_model(file).card
    settings = {"decoder": "direct", "noise_mask": "none", "pairing": "none"}
    settings |= dict.fromkeys(["latent_mask_width", "looks_mask_width"])
    config = make_config(model=settings | {"layers": ModelConfig().layers})  # which is what no mention means
    save_model(make_model(decoder="direct", pairing="none"), replace(card, config=config), old)

    def as_format_1(values: dict[str, Any]) -> None:
        values["format"] = 1
        for key in (
            "decoder",
            "layers",
            "layer_grid",
            "place_latents",
            "noise_mask",
            "mask_width",
            "latent_mask_width",
            "looks_mask_width",
            "pairing",
        ):
            values["config"]["model"].pop(key)

    with_card(old, as_format_1)
    stored = load_model(old)
    assert stored.card.config == config.model_copy(update={"data": stored.card.config.data})
    assert (stored.model.noise_mask, stored.model.latent_mask_width) == ("none", None)


def test_a_model_of_the_second_format_pairs_noises_only_if_it_says_so(
    make_model: Callable[..., IntactVAE], make_config: Callable[..., Config], file: Path, tmp_path: Path
) -> None:
    card = load_model(file).card
    for pairing in ("none", "contours"):
        old = tmp_path / f"{pairing}.safetensors"
        config = make_config(model={"pairing": pairing})
        save_model(make_model(pairing=pairing), replace(card, config=config), old)

        def as_format_2(values: dict[str, Any], kept: bool = pairing == "contours") -> None:
            values["format"] = 2
            if not kept:
                values["config"]["model"].pop("pairing")

        with_card(old, as_format_2)
        assert (load_model(old).model.pairing is not None) == (pairing == "contours")


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    lambda values: values.clear(),
    lambda values: values.update(format="one"),
    lambda values: values.pop("roles"),
    lambda values: values.update(roles=[]),
    lambda values: values["roles"].update(treatments=[{"name": "Young"}, 3]),
    lambda values: values["config"].update(objective="best"),
    lambda values: values.update(config=None),
    lambda values: values.update(preprocessing=None),
    lambda values: values["preprocessing"].update(size="large"),
    lambda values: values["preprocessing"].pop("size"),
    lambda values: values.update(data={}),
    lambda values: values.update(subjects=[["a"]]),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_a_damaged_card_is_named_in_one_line(file: Path, number: int) -> None:
    with_card(file, DAMAGES[number])
    with pytest.raises(DataError, match=r"model.safetensors: its metadata is damaged") as caught:
        load_model(file)
    assert "\n" not in caught.value.message


def test_weights_that_do_not_fit_their_card_are_named(file: Path) -> None:
    with_card(file, lambda values: values["config"]["model"].update(latent=9))
    with pytest.raises(
        DataError,
        match=r"decoder.layers.appearance.0.weight has shape \[256, 66\], the model's is \[256, 69\]",
    ):
        load_model(file)
    with_card(file, lambda values: values["config"]["model"].update(latent=4, predictor=False))
    with pytest.raises(DataError, match=r"predictor.* is not part of the model"):
        load_model(file)


def test_a_size_that_the_card_s_network_cannot_have_is_bad_data(file: Path) -> None:
    with_card(file, lambda values: values["preprocessing"].update(size=17))
    with pytest.raises(DataError, match=r"model.safetensors: does not fit the model"):
        load_model(file)


def test_a_run_on_a_disk_without_links_is_found(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIVAE_MODEL", raising=False)
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    shutil.copytree(trained / "checkpoints" / "last", checkpoints / "step-000000512")
    (checkpoints / "last").write_text("step-000000512\n", encoding="utf-8")
    wanted = checkpoints / "step-000000512" / "model.safetensors"
    assert find_model_file(tmp_path / "runs" / "tiny") == wanted
    assert newest_run(tmp_path / "runs") == tmp_path / "runs" / "tiny"
