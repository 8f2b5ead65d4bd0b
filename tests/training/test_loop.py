"""Training as a whole: what it leaves, when it gives up, and that every kind of run trains."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from civae_core.config.schema import Config
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.faces import faces_source
from civae_core.errors import DataError, DivergedError, UsageError
from civae_core.model.stored import load_model
from civae_core.training.device import Compute
from civae_core.training.heldout import HeldOut
from civae_core.training.loop import train
from civae_core.training.preview import preview

MakeConfig = Callable[..., Config]

SHORT = {"train.images": 64, "train.batch_size": 16, "train.validate_images": 4, "train.checkpoint_every": 32}


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_learns(trained: Path) -> None:
    losses = [line["loss"] for line in lines_of(trained) if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < 0.5 * losses[0]
    found = [line["valid_loss"] for line in lines_of(trained) if "valid_loss" in line]
    assert len(found) == 2
    assert found[-1] < found[0]


def test_lines_say_what_was_measured_when(trained: Path) -> None:
    trainings = [line for line in lines_of(trained) if "loss" in line]
    assert [line["images"] for line in trainings] == [128, 256, 384, 512]
    expected = {"images", "loss", "reconstruction", "kl", "mse", "sigma", "predictor_loss", "grad_norm", "lr"}
    assert all(expected | {"skipped_steps", "images_per_second"} == line.keys() for line in trainings)
    assert {line["skipped_steps"] for line in trainings} == {0}


def test_a_few_bad_steps_are_skipped_and_counted(
    tiny_config: MakeConfig, tmp_path: Path, spoil: Callable[..., None]
) -> None:
    spoil(lambda images_seen: images_seen in (32, 96))
    config = tiny_config(SHORT | {"train.images": 160, "train.log_every": 80})
    assert train(config, tmp_path / "run", device="cpu").finished
    trainings = [line for line in lines_of(tmp_path / "run") if "loss" in line]
    assert [line["skipped_steps"] for line in trainings] == [1, 1]
    assert all(line["loss"] == line["loss"] for line in trainings), "no NaN in the means"
    weights = load_file(tmp_path / "run" / "checkpoints" / "last" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_lasting_nonsense_ends_the_run_and_spares_the_checkpoint(
    tiny_config: MakeConfig, tmp_path: Path, spoil: Callable[..., None]
) -> None:
    spoil(lambda images_seen: images_seen >= 8)
    few = SHORT | {"train.batch_size": 4, "train.checkpoint_every": 8}
    config = tiny_config(few | {"train.images": 32 * 4, "train.log_every": 16})
    with pytest.raises(DivergedError, match=r"diverged: 2\d steps in a row .* at \d+ images") as caught:
        train(config, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 4
    assert "train.lr" in (caught.value.hint or "")
    assert lines_of(tmp_path / "run")[-1]["skipped_steps"] > 0
    assert all(p.isfinite().all() for p in load_model(tmp_path / "run").model.parameters())
    spoil(lambda images_seen: False)
    assert train(tiny_config(few | {"train.images": 16}), tmp_path / "run", device="cpu").finished is True


def test_a_short_run_without_a_single_good_step_is_no_success(
    tiny_config: MakeConfig, tmp_path: Path, spoil: Callable[..., None]
) -> None:
    spoil(lambda images_seen: True)
    with pytest.raises(DivergedError, match="4 steps in a row"):
        train(tiny_config(SHORT), tmp_path / "run", device="cpu")


def test_a_validation_loss_that_is_no_number_is_never_the_best(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOut, "loss", lambda *_: {"valid_loss": float("nan"), "valid_kl": 1.0})
    train(tiny_config(SHORT | {"train.images": 32}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
    assert lines_of(tmp_path / "run")[-2]["valid_loss"] is None, "JSON has no NaN"


@pytest.mark.usefixtures("no_sample_grids")
def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run was stopped and resumed in between; and it is kept although others are dropped."""
    losses = iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(HeldOut, "loss", lambda *_: {"valid_loss": next(losses)})
    counts = {"train.checkpoint_every": 16, "train.keep": 1}
    config = tiny_config(SHORT | counts | {"model.pairing": "none"})
    train(config, tmp_path / "run", device="cpu", stop_at=48)
    train(config, tmp_path / "run", device="cpu")
    assert next(losses, None) is None
    checkpoints = tmp_path / "run" / "checkpoints"
    assert load_model(checkpoints / "best").card.images_seen == 32
    assert load_model(checkpoints / "last").card.images_seen == 64


# Each objective, prior, σ, kind of treatment and weight, precision and layout appears at least once.
KINDS: dict[str, dict[str, Any]] = {
    "balanced prior, per-pixel σ, bf16": {
        "model.prior": "x",
        "model.sigma": "pixel",
        "train.precision": "bf16",
        "train.images": 32,
    },
    "standard prior, fixed σ, no covariates": {
        "model.prior": "standard",
        "model.sigma": "fixed",
        "data.covariates": [],
    },
    "balanced prior without covariates": {"model.prior": "x", "data.covariates": []},
    "cvae, overlap weights, channels last": {
        "objective": "cvae",
        "loss.weights": "overlap",
        "train.channels_last": True,
    },
    "original, concat, batch norm, elu": {
        "objective": "original",
        "model.treatment_input": "concat",
        "model.norm": "batch",
        "model.activation": "elu",
        "loss.weights": "none",
    },
    "several treatments, one of them continuous": {
        "data.treatment": ["Young", "Male", "Skin_Tone"],
        "data.covariates": ["Smiling"],
    },
    "continuous treatment, β warm-up, no predictor": {
        "data.treatment": ["Skin_Tone"],
        "data.covariates": ["Male"],
        "model.predictor": False,
        "loss.beta_warmup": 32,
    },
    "two binary treatments, overlap weights": {
        "data.treatment": ["Young", "Male"],
        "data.covariates": ["Smiling"],
        "loss.weights": "overlap",
    },
    "batch larger than the split": {"train.batch_size": 300, "train.images": 300},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_run_trains(tiny_config: MakeConfig, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny_config(SHORT | changes)
    result = train(config, tmp_path / "run", device="cpu")
    assert result.finished
    assert all(line["loss"] is not None for line in lines_of(tmp_path / "run") if "loss" in line)
    stored = load_model(tmp_path / "run")
    assert stored.card.config == config
    assert all(p.isfinite().all() for p in stored.model.parameters())
    assert list((tmp_path / "run" / "samples").glob("step-*.png"))


def test_grey_images_train(tiny_config: MakeConfig, tmp_path: Path) -> None:
    source = faces_source(count=60, seed=0, overlap=0.5, truths=[], size=32, channels=1)
    prepare(source, tmp_path / "grey", workers=1, max_bad=MaxBad.parse("0"))
    config = tiny_config(SHORT | {"data.path": str(tmp_path / "grey")})
    assert train(config, tmp_path / "run", device="cpu").finished
    assert load_model(tmp_path / "run").model.channels == 1


def test_a_compiled_run_trains_and_stores_plain_weights(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is traced but not translated to C++, which takes minutes for a network of any size."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    settings = SHORT | {"train.images": 32, "model.stages": [1, 2], "model.layers": 2}
    for name in ("compiled", "plain"):
        config = tiny_config(settings | {"train.compile": name == "compiled"})
        train(config, tmp_path / name, device="cpu")
    compiled, plain = (load_model(tmp_path / name).model.state_dict() for name in ("compiled", "plain"))
    assert compiled.keys() == plain.keys()
    assert all(torch.allclose(compiled[key], plain[key], atol=1e-6) for key in plain)


def test_overlap_weights_of_a_continuous_treatment_are_refused(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"data.treatment": ["Skin_Tone"], "data.covariates": ["Male"], "loss.weights": "overlap"}
    with pytest.raises(UsageError, match="overlap weights"):
        train(tiny_config(changes), tmp_path / "run", device="cpu")


def test_an_unknown_column_is_refused_before_the_folder_is_touched(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"data.treatment: unknown attribute 'Yuong' \(did you mean Young\?\)"
    ):
        train(tiny_config({"data.treatment": ["Yuong"]}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_missing_data_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(tiny_config({"data.path": str(tmp_path / "nowhere")}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_size_that_does_not_fit_the_stages_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="6 stages need an image size divisible by 64, not 32"):
        train(tiny_config({"model.stages": [1] * 6}), tmp_path / "run", device="cpu")


def test_a_preview_computes_as_its_training_would(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up: list[Compute] = []
    monkeypatch.setattr(Compute, "fast_backends", lambda compute: set_up.append(compute) or nullcontext())
    config = tiny_config(SHORT | {"train.log_every": 16})
    foreseen = preview(config, tmp_path / "run", device="cpu").loss
    train(config, tmp_path / "run", device="cpu", stop_at=16)
    assert len(set_up) == 2
    assert foreseen == round(lines_of(tmp_path / "run")[0]["loss"], 2)


def test_a_preview_measures_and_writes_nothing(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved: dict[int, int] = {}

    def noted(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        found = preview(tiny_config(), tmp_path / "run", device="cpu")
    assert (found.training_images, found.validation_images) == (240, 16)
    assert found.parameters > 10_000 < found.predictor_parameters
    for_backward = sum(saved.values()) / 2**20
    assert for_backward < found.memory_estimate_mib < 1.5 * for_backward, "weights and gradients are few here"
    assert found.loss is not None
    assert list(tmp_path.iterdir()) == []
