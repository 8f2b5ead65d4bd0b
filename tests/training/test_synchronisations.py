"""Nothing in a step asks the device for a value: every lever, precision, cache and saving of memory.

Counted by the operators that a host must wait for, on the CPU with real numbers; and tried on `meta`, a device that
has shapes and no values, so that whatever needs one raises.
"""

from typing import Any

import pytest
import torch
from learners import COUNT, LATENT, LEVERS, SIZE, MakeLearner, batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from civae_core.data.batches import Cache, TrainingBatches

aten = torch.ops.aten
WAITED_FOR = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
}
"""Operators whose result, or its size, the host must know before it goes on: .item(), bool(), masks, …"""
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class SynchronisationCounter(TorchDispatchMode):
    """Counts what a host would wait for on a device that computes beside it."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = function in INDEXED and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in tree_leaves(args[1])
        )
        made = function(*args, **(kwargs or {}))
        home = (
            function in (aten._to_copy.default, aten.copy_.default)
            and made.device.type == "cpu"
            and any(isinstance(given, Tensor) and given.device.type != "cpu" for given in args)
        )
        self.count += function in WAITED_FOR or by_mask or home
        return made


@pytest.mark.parametrize(
    "wait",
    [
        lambda: torch.ones(()).item(),
        lambda: bool(torch.ones(()) > 0),
        lambda: torch.ones(3).nonzero(),
        lambda: torch.ones(3)[torch.ones(3) > 0],
        lambda: torch.ones(3).masked_select(torch.ones(3) > 0),
        lambda: torch.zeros(3).index_put_((torch.ones(3) > 0,), torch.ones(())),
        lambda: torch.equal(torch.ones(3), torch.ones(3)),
        lambda: torch.arange(3).repeat_interleave(torch.arange(3)),
    ],
    ids=["item", "bool", "nonzero", "mask", "masked_select", "write by mask", "equal", "repeat"],
)
def test_the_counter_does_count(wait: Any) -> None:
    with SynchronisationCounter() as counter:
        wait()
    assert counter.count == 1


def test_the_counter_lets_pass_what_stays_on_the_device() -> None:
    with SynchronisationCounter() as counter:
        values = torch.arange(6.0)[torch.tensor([3, 1])] * 2
        torch.where(values > 1, values, 0).to(torch.float64).copy_(values)
    assert counter.count == 0


SAVING: dict[str, Any] = {"accumulate": 3, "checkpoint_activations": True}


ALL: dict[str, Any] = {"loss": LEVERS | {"free_bits": 0.1}, "train": SAVING}


@pytest.mark.parametrize(
    ("sections", "precision"),
    [
        ({}, "fp32"),
        ({}, "fp16"),
        ({"loss": ALL["loss"]}, "fp32"),
        (ALL, "fp32"),
        (ALL, "bf16"),
        (ALL, "fp16"),
        ({"objective": "original"}, "bf16"),
        ({"model": {"norm": "batch", "sigma": "pixel"}, "train": {"accumulate": 2}}, "fp32"),
    ],
)
def test_a_step_asks_the_device_for_nothing(
    make_learner: MakeLearner, precision: str, sections: dict[str, Any]
) -> None:
    learner = make_learner(precision=precision, **sections)
    for step in range(2):
        made, beside = batch(step), batch(step + 10, count=2)
        with SynchronisationCounter() as counter:
            learner.step(made, step * COUNT, beside)
        assert counter.count == 0


class Images:
    """Stands for prepared data of forty images."""

    def images(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), 3, SIZE, SIZE, dtype=torch.uint8)


@pytest.mark.usefixtures("fused_on_meta")
def test_batch_and_step_leave_no_value_on_the_host(make_learner: MakeLearner) -> None:
    learner = make_learner("meta", train=SAVING)
    caches: list[Cache] = ["mmap", "ram", "device"]
    for seen, cache in enumerate(caches):
        batches = TrainingBatches(
            Images(),  # type: ignore[arg-type]
            torch.arange(40),
            torch.zeros(40, 2),
            torch.zeros(40, 1),
            torch.ones(40),
            batch_size=COUNT,
            latent=LATENT,
            flip=True,
            cache=cache,
            seed=0,
            device=torch.device("meta"),
        )
        with SynchronisationCounter() as counter:
            made = batches.at(seen * COUNT)
            if cache == "device":
                learner.step(made, seen * COUNT)
        assert counter.count == 0, cache
    assert {p.device.type for p in learner.average.parameters()} == {"meta"}
