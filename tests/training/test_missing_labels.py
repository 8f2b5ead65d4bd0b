"""Rows that lack labels: effects are learned without them, and the predictor learns what they have."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from civae_core.attributes import AttributeRoles
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.data.batches import Batch
from civae_core.data.labelled import labelled_rows, partly_labelled_rows, rows_with_labels
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.faces import faces_source
from civae_core.model import IntactVAE
from civae_core.model.calibrated import UNCALIBRATED, fit_calibration
from civae_core.model.stored import load_model
from civae_core.objective import predictor_loss
from civae_core.penalties.surprise import Surprise
from civae_core.training import setup
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import Learner
from civae_core.training.loop import train
from civae_core.training.preview import preview
from civae_core.training.setup import assign_roles, make_batches, make_partly_batches, partly_at

CPU = Compute(torch.device("cpu"), "fp32", False)
MakeConfig = Callable[..., Config]


def faces_lacking(out: Path, *, partly: bool) -> PreparedData:
    """200 faces; of every fourth Male is unknown, and Young and Skin_Tone too unless it is `partly` labelled."""
    source = faces_source(count=200, seed=0, overlap=0.5, truths=[], size=32, channels=3)
    values_NA = source.table.values_NA.copy()
    for name in ("Male",) if partly else ("Male", "Young", "Skin_Tone"):
        values_NA[::4, source.table.names.index(name)] = torch.nan
    lacking = replace(source, table=replace(source.table, values_NA=values_NA))
    return prepare(lacking, out, workers=1, max_bad=MaxBad.parse("0")).data


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return faces_lacking(tmp_path_factory.mktemp("lacking") / "partly", partly=True)


@pytest.fixture(scope="module")
def config(partly: PreparedData, tiny_config: MakeConfig) -> MakeConfig:
    def make(**changes: Any) -> Config:
        settings = {"data.path": str(partly.path), "train.batch_size": 16, "train.images": 128}
        return tiny_config(settings | {"train.validate_images": 100} | changes)

    return make


@pytest.fixture(scope="module")
def run(config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "partly"
    train(config(), out, device="cpu")
    return out


def test_rows_by_what_they_lack(partly: PreparedData, config: MakeConfig) -> None:
    roles = assign_roles(config(), partly)
    whole, some = (
        labelled_rows(partly, roles, "train", warn=False),
        partly_labelled_rows(partly, roles, "train"),
    )
    rows_N = partly.rows("train")
    assert torch.equal(some.rows_N, rows_N[rows_N % 4 == 0])
    assert torch.equal(whole.rows_N, rows_N[rows_N % 4 != 0])
    assert some.x_NX[:, 0].isnan().all() and not some.t_NT.isnan().any() and not some.x_NX[:, 1].isnan().any()
    assert torch.equal(rows_with_labels(partly, roles, "train").rows_N, rows_N)

    alone = AttributeRoles(treatments=(roles.covariates[0],), covariates=())
    assert len(partly_labelled_rows(partly, alone, "train")) == 0, "without Male nothing is left of them"
    assert torch.equal(rows_with_labels(partly, alone, "train").rows_N, whole.rows_N)


def test_effects_are_learned_as_if_the_rows_were_not_there_and_the_predictor_is_not(
    config: MakeConfig, partly: PreparedData, tmp_path: Path
) -> None:
    """Without a continuous covariate, since its mean and spread would be computed over different rows."""
    states = []
    for data in (partly, faces_lacking(tmp_path / "unlabelled", partly=False)):
        out = tmp_path / f"run-{data.path.name}"
        train(config(**{"data.path": str(data.path), "data.covariates": ["Male"]}), out, device="cpu")
        states.append(load_model(out).model.state_dict())
    ours, theirs = states
    different = {name.partition(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert different == {"predictor"}


def test_what_becomes_of_them_is_said_when_training_starts(
    partly: PreparedData, config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lacking, of = int((partly.rows("train") % 4 == 0).sum()), len(partly.rows("train"))
    preview(config(), tmp_path / "run", device="cpu")
    said = f"{lacking} of {of} training images lack a label for Young, Male, Skin_Tone"
    assert said in caplog.text
    assert f"also learns the labels that {lacking} of the incomplete ones have" in caplog.text
    assert "train split" not in caplog.text, "and not a second time in other words"
    caplog.clear()
    preview(config(**{"model.predictor": False}), tmp_path / "run", device="cpu")
    assert said in caplog.text and "(model.predictor is off)" in caplog.text


def test_without_missing_labels_nothing_is_said_and_nothing_goes_beside(
    faces: PreparedData, tiny_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    roles = assign_roles(tiny_config(), faces)
    with caplog.at_level(logging.WARNING):
        full = make_batches(tiny_config(), roles, faces, CPU, Processes())
        assert make_partly_batches(tiny_config(), roles, faces, CPU, Processes(), full) is None
    assert partly_at(None, 0, full) is None
    assert not caplog.records


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_an_epoch_of_both_takes_as_long_however_many_processes_share_it(
    partly: PreparedData, config: MakeConfig, world_size: int
) -> None:
    chosen = config()
    roles = assign_roles(chosen, partly)
    rows = partly_labelled_rows(partly, roles, "train").rows_N
    seen: list[torch.Tensor] = []
    for rank in range(world_size):
        processes = Processes(rank, world_size)
        full = make_batches(chosen, roles, partly, CPU, processes)
        beside = make_partly_batches(chosen, roles, partly, CPU, processes, full)
        assert beside is not None and beside.batch_size == 5, "40 to 120 images, as 5 to 16"
        for step in range(8):
            batch = partly_at(beside, 16 * step, full)
            share = len(range(rank, 5, world_size))
            assert (0 if batch is None else len(batch.y_BCHW)) == share
            if batch is not None:
                seen.append((batch.y_BCHW * 255).round().byte())
    images = torch.cat(seen).flatten(1).float().sum(dim=1)
    expected = partly.images(rows).flatten(1).float().sum(dim=1)
    assert len(images) == len(rows) == 40
    torch.testing.assert_close(images.sort().values, expected.sort().values)


def test_a_few_of_them_are_not_seen_more_often_than_the_others(
    partly: PreparedData, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config()
    roles = assign_roles(chosen, partly)
    full = make_batches(chosen, roles, partly, CPU, Processes())
    monkeypatch.setattr(setup, "partly_labelled_rows", lambda *of: partly_labelled_rows(*of)[:2])
    few = make_partly_batches(chosen, roles, partly, CPU, Processes(), full)
    epoch = len(full.rows_N) // full.batch_size
    came = [partly_at(few, 16 * step, full) for step in range(10 * epoch)]
    assert 18 <= sum(batch is not None for batch in came) <= 22, "two in each of ten epochs"


def batch_of(count: int, seed: int, labels: list[list[float]] | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    y_BCHW = torch.rand(count, 3, 16, 16, generator=generator)
    a_BA = (
        torch.tensor(labels) if labels else torch.tensor([[1.0, 0.0, 40.0], [0.0, 1.0, 55.0]] * (count // 2))
    )
    noise_BZ = torch.randn(count, 4, generator=generator)
    return Batch(y_BCHW, a_BA[:, 1:], a_BA[:, :1], torch.ones(count), noise_BZ)


@pytest.fixture
def stepped(roles: AttributeRoles, make_config: MakeConfig, make_model: Callable[..., IntactVAE]) -> Any:
    def make(beside: Batch | None) -> dict[str, torch.Tensor]:
        learner = Learner(make_model(), make_config(train={"grad_clip": 1e9}), roles, CPU)
        learner.step(batch_of(6, 0), 0, beside)
        return {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}

    return make


NAN = torch.nan


def test_only_the_labels_that_are_there_teach(
    stepped: Callable[[Batch | None], dict[str, torch.Tensor]],
) -> None:
    alone = stepped(None)
    nothing = stepped(batch_of(3, 1, [[NAN, NAN, NAN]] * 3))
    assert all(torch.equal(alone[name], nothing[name]) for name in alone)
    male = stepped(batch_of(3, 1, [[NAN, 1.0, NAN], [NAN, 0.0, NAN], [NAN, 1.0, NAN]]))
    moved = {name for name in alone if not torch.equal(alone[name], male[name])}
    assert moved and all(name.startswith("predictor.") for name in moved)
    head = [
        torch.equal(alone["predictor.head.weight"][row], male["predictor.head.weight"][row])
        for row in range(3)
    ]
    assert head == [True, False, True], "of Young, Male and Age only Male has something new to learn"


def test_the_loss_counts_labels_not_images(roles: AttributeRoles) -> None:
    outputs_BA = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.1, -0.2]], requires_grad=True)
    loss = predictor_loss(
        outputs_BA, torch.tensor([[1.0, NAN, 44.0], [NAN, NAN, 20.0]]), Surprise(roles.inputs), images=4
    )
    expected = F.softplus(torch.tensor(-0.3)) + 0.5 * ((0.5 - 0.4) ** 2 + (-0.2 + 2.0) ** 2)
    assert loss.item() == pytest.approx(float(expected) / 4, rel=1e-6)
    loss.backward()
    assert outputs_BA.grad is not None and outputs_BA.grad.isfinite().all()
    assert (outputs_BA.grad != 0).tolist() == [[True, False, True], [False, False, True]]


def test_every_checkpoint_is_calibrated_on_all_held_out_labels(run: Path, partly: PreparedData) -> None:
    roles, rows = load_model(run).card.roles, partly.rows("valid")
    labels_NA = torch.stack([partly.column(a.name)[rows] for a in roles.inputs], dim=1)
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        stored = load_model(checkpoint)
        assert stored.model.predictor is not None
        outputs_NA = stored.model.predictor(partly.images(rows).float() / 255)
        expected = fit_calibration(outputs_NA, labels_NA, roles.inputs, "valid")
        found = stored.card.calibration
        assert found.images == expected.images
        assert found.images["Young"] == len(rows) > 0
        for name, value in (expected.temperatures | expected.spreads).items():
            assert (dict(found.temperatures) | dict(found.spreads))[name] == pytest.approx(value, rel=1e-4)


def test_images_that_it_learned_from_calibrate_nothing(
    partly: PreparedData, run: Path, config: MakeConfig
) -> None:
    stored = load_model(run)
    roles = stored.card.roles
    device = torch.device("cpu")
    for split, fitted in (("valid", True), ("train", False)):
        chosen = labelled_rows(partly, roles, split, warn=False)  # type: ignore[arg-type]
        held = HeldOut(partly, chosen, roles, config(), device, split)  # type: ignore[arg-type]
        assert (held.calibration(stored.model) != UNCALIBRATED) == fitted
    stored.model.predictor = None
    assert held.calibration(stored.model) == UNCALIBRATED


def test_weights_that_leave_a_covariate_apart_are_said(
    faces: PreparedData, tiny_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A cap of 1 makes all weights equal: a large effective sample, and nothing balanced."""
    for cap, said in ((1.0, True), (20.0, False)):
        caplog.clear()
        chosen = tiny_config({"loss.weights": "inverse", "loss.weight_cap": cap, "data.covariates": ["Male"]})
        make_batches(chosen, assign_roles(chosen, faces), faces, CPU, Processes())
        assert ("the weights do not balance the covariates of Young" in caplog.text) is said
        assert ("of Male); see the data's report.html" in caplog.text) is said
