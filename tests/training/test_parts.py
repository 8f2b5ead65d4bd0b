"""A batch in parts, activations computed twice, gradients that keep their place: all give the step they replace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from learners import LEVERS, MakeLearner, assert_near, assert_same, batch, gradients_of, state_of, train
from pydantic import ValidationError

from civae_core.config import Config
from civae_core.config.effects import within_parts
from civae_core.data import PreparedData
from civae_core.data.batches import Batch
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.memory import peak_memory
from civae_core.training.setup import assign_roles, make_batches

SOLITARY = {name: weight for name, weight in LEVERS.items() if name != "hsic"}
"""Levers that treat each image by itself."""


def gradients(learner: Learner, parts: int, partly: Batch | None = None) -> dict[str, torch.Tensor]:
    learner._add_gradients(batch(), 0, partly, parts)
    found = gradients_of(learner)
    learner._forget_gradients()
    return found


def test_parts_are_the_batch(make_learner: MakeLearner) -> None:
    whole = batch()
    for parts in (1, 2, 3, 4):
        cut = whole.split(parts)
        assert len(cut) == parts
        for name, values in vars(whole).items():
            assert torch.equal(torch.cat([vars(part)[name] for part in cut]), values)
    assert [len(part) for part in batch(count=2).split(3)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("sections", "parts", "beside"),
    [
        ({}, 2, 0),
        ({}, 3, 5),
        ({}, 6, 2),
        ({"loss": SOLITARY}, 3, 0),
        ({"objective": "original"}, 2, 2),
    ],
)
def test_parts_add_up_to_the_gradient_of_the_batch(
    make_learner: MakeLearner, parts: int, beside: int, sections: dict[str, Any]
) -> None:
    learner = make_learner(**sections)
    train(learner, 2)  # away from blocks that start at zero
    partly = batch(seed=9, count=beside) if beside else None
    assert_near(gradients(learner, 1, partly), gradients(learner, parts, partly))


def test_a_step_in_parts_measures_and_learns_the_same(make_learner: MakeLearner) -> None:
    whole, cut = make_learner(), make_learner(train={"accumulate": 3})
    assert (whole.parts, cut.parts) == (1, 3)
    for step in range(3):
        whole.step(batch(step), step * 6)
        cut.step(batch(step), step * 6)
    a, b = whole.tally.read(), cut.tally.read()
    assert a[0] == pytest.approx(b[0], rel=1e-3)
    assert a[1:] == b[1:] == (0, 0)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_one_bad_part_skips_the_whole_step(make_learner: MakeLearner, norm: str) -> None:
    learner = make_learner(train={"accumulate": 3}, model={"norm": norm})
    train(learner, 2)
    before, poisoned = state_of(learner), batch(5)
    poisoned.y_BCHW[2, 0, 0, 0] = torch.nan
    learner.step(poisoned, 12)
    assert_same(before, state_of(learner))
    assert learner.tally.read()[1] == 1


@pytest.mark.parametrize(
    ("sections", "precision"),
    [
        ({}, "fp32"),
        ({"loss": LEVERS}, "bf16"),
        ({"model": {"decoder": "direct"}}, "fp32"),
        ({"model": {"block": "inverted"}}, "fp32"),
        ({"model": {"network": "original", "deep": True}}, "fp32"),
    ],
)
def test_activations_computed_twice_give_the_same_bits(
    make_learner: MakeLearner, sections: dict[str, Any], precision: str
) -> None:
    kept, twice = (
        make_learner(precision=precision, train={"checkpoint_activations": on}, **sections)
        for on in (False, True)
    )
    train(kept, 3)
    train(twice, 3)
    assert_same(state_of(kept), state_of(twice))
    assert_same(kept.average.state_dict(), twice.average.state_dict())


def peak_of_a_step(learner: Learner) -> int:
    train(learner, 1)  # moments are there from now on
    made = batch(1, count=48)
    with peak_memory(torch.device("cpu")) as peak:
        learner.step(made, 6)
    return peak.bytes


@pytest.mark.parametrize("network", ["residual", "original"])
def test_both_savings_save_memory(make_learner: MakeLearner, network: str) -> None:
    model = {"blocks": 2, "network": network}
    plain = peak_of_a_step(make_learner(model=model))
    twice = peak_of_a_step(make_learner(model=model, train={"checkpoint_activations": True}))
    parts = peak_of_a_step(make_learner(model=model, train={"accumulate": 6}))
    assert twice < 0.75 * plain
    assert parts < 0.4 * plain


def test_activations_of_the_average_are_no_matter(make_learner: MakeLearner) -> None:
    learner = make_learner(train={"checkpoint_activations": True})
    assert not any("forward" in vars(module) for module in learner.average.modules())
    assert any("forward" in vars(module) for module in learner.model.modules())


def test_gradients_that_keep_their_place_are_the_same(make_learner: MakeLearner) -> None:
    """A recorded CUDA graph needs this; it is tested without one."""
    plain, kept = (make_learner(train={"accumulate": 2}) for _ in range(2))
    kept.keep_gradients_in_place()
    places = {name: p.grad.data_ptr() for name, p in kept.named_parameters().items() if p.grad is not None}
    assert places.keys() == kept.named_parameters().keys()
    train(plain, 3)
    train(kept, 3)
    assert_same(state_of(plain), state_of(kept))
    assert places == {name: p.grad.data_ptr() for name, p in kept.named_parameters().items()}  # type: ignore[union-attr]
    assert all(not p.grad.any() for p in kept.named_parameters().values())  # type: ignore[union-attr]


@pytest.mark.parametrize(("asked", "mode"), [(True, None), ("graphs", None)])
def test_without_cuda_graphs_are_plain_compilation_and_said_to_be(
    make_learner: MakeLearner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: Any,
    mode: str | None,
) -> None:
    modes: list[str | None] = []
    monkeypatch.setattr(torch, "compile", lambda module, mode: modes.append(mode) or module)
    learner = make_learner()
    learner.wrap(compiled=asked, distributed=False)
    assert modes == [mode]
    assert not learner.replays_graphs
    assert ("train.compile graphs: cpu has no CUDA graphs" in caplog.text) == (asked == "graphs")


def test_on_cuda_graphs_are_recorded_and_gradients_kept(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device only claims to be a CUDA device."""
    modes: list[str | None] = []
    monkeypatch.setattr(torch, "compile", lambda module, mode: modes.append(mode) or module)
    learner = make_learner()
    learner.compute = type(learner.compute)(torch.device("cuda", 0), "fp32", False)
    learner.wrap(compiled="graphs", distributed=False)
    assert modes == ["reduce-overhead"]
    assert learner.replays_graphs
    assert all(p.grad is not None for p in learner.named_parameters().values())


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"loss": {"hsic": 1.0}}, ["loss.hsic"]),
        ({"loss": {"free_bits": 0.1}}, ["loss.free_bits"]),
        ({"loss": {"reencode": 0.1, "guidance": 0.1}}, ["loss.reencode", "loss.guidance"]),
        ({"loss": {"arm_balance": 0.1}}, ["loss.arm_balance"]),
        ({"model": {"norm": "batch"}}, ["model.norm"]),
        ({"loss": {"adversary": 0.1}}, []),
    ],
)
def test_what_differs_in_parts_is_said(
    make_config: Callable[..., Config], sections: dict[str, Any], named: list[str]
) -> None:
    in_parts = within_parts(make_config(train={"accumulate": 2}, **sections), 1)
    in_shares = within_parts(make_config(**sections), 2)
    both = within_parts(make_config(train={"accumulate": 3}, **sections), 2)
    assert within_parts(make_config(**sections), 1) == []
    for said, part in (
        (in_parts, "each part of a batch (train.accumulate)"),
        (in_shares, "each process's share of a batch"),
        (both, "each part (train.accumulate) of a process's share of a batch is one image"),
    ):
        assert [text.split(" ")[0] for text in said] == named
        assert all(part in text for text in said)


@pytest.mark.parametrize(("train", "world_size"), [({}, 6), ({"accumulate": 6}, 1), ({"batch_size": 1}, 1)])
def test_what_single_images_cannot_do_is_said(
    make_config: Callable[..., Config], train: dict[str, Any], world_size: int
) -> None:
    on = {"hsic": 1.0, "free_bits": 0.1, "arm_balance": 0.1}
    no_hsic, bits, balance, norm = within_parts(
        make_config(loss=on, model={"norm": "batch"}, train=train), world_size
    )
    assert no_hsic.startswith("loss.hsic has no effect: ")
    assert bits.startswith("loss.free_bits applies to each image, ")
    assert balance.startswith(
        "loss.arm_balance changes only the first treatment, and none that is continuous: "
    )
    assert norm.startswith("model.norm batch normalises each image by itself: ")


def test_a_run_says_what_its_number_of_processes_changes(
    faces: PreparedData, tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config({"loss.hsic": 1.0})
    roles, compute = assign_roles(config, faces), Compute(torch.device("cpu"), "fp32", False)
    make_batches(config, roles, faces, compute, Processes())
    assert "loss.hsic" not in caplog.text
    make_batches(config, roles, faces, compute, Processes(1, 2))
    assert "loss.hsic is measured within each process's share of a batch" in caplog.text


def test_what_cannot_be_is_refused(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ValidationError, match="accumulate: 4 equal parts cannot be made of 6 images"):
        make_config(train={"accumulate": 4})
    with pytest.raises(ValidationError, match=r"train.checkpoint_activations: .* model.norm 'batch' twice"):
        make_config(train={"checkpoint_activations": True}, model={"norm": "batch"})
    assert make_config(train={"accumulate": "auto"}).train.accumulate == "auto"
    assert make_config(train={"channels_last": None}).train.channels_last == "auto", "as old configs say"
