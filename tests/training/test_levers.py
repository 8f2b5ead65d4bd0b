"""Penalties in a training step: off they change no bit; on they are reported, and critics are stored."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from learners import assert_near, gradients_of
from safetensors.torch import load_file
from torch import Tensor, nn

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.data.batches import Batch
from civae_core.model import IntactVAE
from civae_core.objective import negative_elbo, predictor_loss
from civae_core.penalties.surprise import Surprise
from civae_core.training.device import Compute
from civae_core.training.heldout import HeldOut
from civae_core.training.learner import METRICS, Learner
from civae_core.training.loop import train

ALL = {"adversary": 5.0, "hsic": 50.0, "arm_balance": 0.5, "reencode": 0.1, "guidance": 10.0}
MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]


@pytest.fixture
def make_learner(roles: AttributeRoles, make_config: Callable[..., Config]) -> MakeLearner:
    def make(pairing: str = "none", **loss: float) -> Learner:
        config = make_config(loss=loss, model={"pairing": pairing})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = IntactVAE(config.model, roles, 16, 3)
        return Learner(model, config, roles, Compute(torch.device("cpu"), "fp32", False))

    return make


@pytest.fixture
def make_batch(photos: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> MakeBatch:
    def make(seed: int = 0) -> Batch:
        y, x, t = photos(6, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        noise, weights = torch.randn(6, 4, generator=generator), 2 * torch.rand(6, generator=generator)
        return Batch(y, x, t, weights, noise)

    return make


def parameters_of(learner: Learner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.named_parameters().items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def test_with_all_off_a_step_is_the_bound_and_nothing_else_bit_for_bit(
    make_learner: MakeLearner, make_batch: MakeBatch, roles: AttributeRoles
) -> None:
    """The reference is the step written out: forward, (M4), predictor, two clips, AdamW."""
    learner, reference = make_learner(), make_learner()
    model, optimizer = reference.model, reference.optimizer
    predictor = model.predictor
    assert predictor is not None
    for step in range(4):
        batch = make_batch(step)
        learner.step(batch, step * 6)

        output = model(batch.y_BCHW, batch.x_BX, batch.t_BT, batch.noise_BZ)
        loss = negative_elbo(batch.y_BCHW, output, 5.0, batch.weights_B).loss / (3 * 16**2)
        assert output.predicted_BA is not None
        labels_BA = torch.cat([batch.t_BT, batch.x_BX], dim=1)
        (loss + predictor_loss(output.predicted_BA, labels_BA, Surprise(roles.inputs))).backward()
        beside = set(predictor.parameters())
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p not in beside], 1.0)
        nn.utils.clip_grad_norm_(list(predictor.parameters()), 1.0)
        reference._set_learning_rate(step * 6)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert differing(parameters_of(learner), parameters_of(reference)) == []
    assert learner.tally.names == METRICS
    assert not list(learner.critics.parameters())


def test_noises_that_are_yet_to_be_paired_change_no_bit(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    unpaired, to_be_paired = make_learner(**ALL), make_learner(pairing="contours", **ALL)
    assert to_be_paired.model.pairing is not None
    for learner in (unpaired, to_be_paired):
        learner.step(make_batch(), 0)
    assert differing(parameters_of(unpaired), parameters_of(to_be_paired)) == []


@pytest.mark.parametrize("name", ALL)
def test_each_lever_alone_is_reported_and_moves_the_model(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    plain, with_it = make_learner(), make_learner(**{name: ALL[name]})
    for step in range(4):
        plain.step(make_batch(step), step * 6)
        with_it.step(make_batch(step), step * 6)
    means, skipped, _ = with_it.tally.read()
    learned = {"adversary": ["assignment_loss", "adversary_loss"], "hsic": ["assignment_loss"]}.get(name, [])
    assert list(means) == [*METRICS, name, *learned]
    assert skipped == 0
    assert all(value - value == 0 for value in means.values())
    model, other = dict(plain.model.named_parameters()), dict(with_it.model.named_parameters())
    moved = {key.split(".")[0] for key in model if not torch.equal(model[key], other[key])}
    assert moved >= ({"prior"} if name == "arm_balance" else {"encoder", "prior"})
    assert "predictor" not in moved, "it learns from photographs and labels only"


def test_what_is_minimised_adds_each_lever_by_its_weight_and_that_of_each_image(
    make_learner: MakeLearner, make_batch: MakeBatch, roles: AttributeRoles
) -> None:
    """The reference is the loss written out: ELBO and penalties per value of an image, predictor, critics."""
    learner, reference, batch = make_learner(**ALL), make_learner(**ALL), make_batch()
    assert batch.weights_B.std() > 0.1
    values = learner._add_gradients(batch, 0, None, 1)

    found = reference.pass_through(batch.y_BCHW, batch.x_BX, batch.t_BT, batch.noise_BZ, batch.weights_B)
    output, weights_B, dimensions = found.output, batch.weights_B, 3 * 16**2
    labels_BA = torch.cat([batch.t_BT, batch.x_BX], dim=1)
    total = negative_elbo(batch.y_BCHW, output, 5.0, weights_B).loss / dimensions
    total = total + predictor_loss(output.predicted_BA, labels_BA, Surprise(roles.inputs))
    for key, weight in ALL.items():
        total = total + weight * (weights_B * found.penalties[key]).mean() / dimensions
    for own_B in found.own_losses.values():
        total = total + (weights_B * own_B).mean()
    total.backward()
    assert_near(gradients_of(learner), gradients_of(reference))
    for key, value_B in (found.penalties | found.own_losses).items():
        torch.testing.assert_close(values[key], (weights_B * value_B).mean().detach())


def test_critics_learn_beside_the_model_and_stay_out_of_it(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner(adversary=1.0)
    before = parameters_of(learner)
    for step in range(4):
        learner.step(make_batch(step), step * 6)
    critics = [name for name in before if name.startswith("critics.")]
    assert {name.split(".")[1] for name in critics} == {"assignment", "adversary"}
    assert set(differing(before, parameters_of(learner))) >= set(critics)
    assert not [n for n in learner.average.state_dict() if "adversary" in n or "assignment" in n]
    assert learner.average.state_dict().keys() == make_learner().average.state_dict().keys()


def test_a_critics_bad_gradient_skips_the_whole_step(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner(adversary=1.0)
    learner.step(make_batch(), 0)
    before = parameters_of(learner)
    weight = next(learner.critics["assignment"].parameters())
    hook = weight.register_hook(lambda gradient: gradient * torch.inf)
    learner.step(make_batch(1), 6)
    hook.remove()
    assert differing(before, parameters_of(learner)) == []
    assert learner.tally.read()[1] == 1


def test_the_pass_traces_as_one_graph(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner, batch = make_learner(**ALL), make_batch()
    inputs = (batch.y_BCHW, batch.x_BX, batch.t_BT, batch.noise_BZ, batch.weights_B)
    traced = torch.compile(learner.pass_through, backend="eager", fullgraph=True)(*inputs)
    plain = learner.pass_through(*inputs)
    assert list(traced.penalties) == list(plain.penalties) == list(ALL)
    for name, value_B in plain.penalties.items():
        torch.testing.assert_close(traced.penalties[name], value_B, msg=name)


SHORT = {
    "train.images": 64,
    "train.batch_size": 16,
    "train.log_every": 16,
    "train.validate_images": 4,
    "train.checkpoint_every": 64,
} | {f"loss.{name}": weight for name, weight in ALL.items()}


def test_a_run_with_levers_resumes_bit_for_bit_and_its_model_holds_no_critic(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)
    config = tiny_config(SHORT)
    train(config, tmp_path / "whole", device="cpu")
    train(config, tmp_path / "halves", device="cpu", stop_at=32)
    train(config, tmp_path / "halves", device="cpu")
    files = [
        {name: load_file(tmp_path / run / "checkpoints" / "last" / f"{name}.safetensors") for name in FILES}
        for run in ("whole", "halves")
    ]
    for name in FILES:
        assert differing(files[0][name], files[1][name]) == []
    assert any(key.startswith("critics.adversary.") for key in files[0]["state"])
    assert any(key.startswith("optimizer.critics.assignment.") for key in files[0]["state"])
    assert not any("critics" in key for key in files[0]["model"])
    line = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[0])
    assert line.keys() >= {*ALL, "adversary_loss", "assignment_loss"}

    # From another run, which had no adversary: its critic starts afresh, the rest goes on.
    without = tiny_config({k: v for k, v in SHORT.items() if k != "loss.adversary"} | {"train.images": 32})
    train(without, tmp_path / "without", device="cpu")
    go_on = train(config, tmp_path / "more", device="cpu", resume=str(tmp_path / "without"))
    assert go_on.images_seen == 64


FILES = ("model", "state")
