"""Memory of a step: counted exactly, fitted into by trying, and when it runs out, a sentence that helps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learners import MakeLearner, assert_same, batch, state_of, train
from torch import Tensor, nn

from civae_core.config import Config, load_config
from civae_core.data.batches import TrainingBatches
from civae_core.errors import CivaeError
from civae_core.training import loop, memory, preparation
from civae_core.training import preview as preview_module
from civae_core.training.device import Compute
from civae_core.training.distributed import Processes
from civae_core.training.feed import Fed, Feed
from civae_core.training.learner import Learner
from civae_core.training.memory import Peak, fit_parts, most_parts, out_of_memory_explained, peak_memory
from civae_core.training.preparation import Prepared
from civae_core.training.preview import preview

CPU = torch.device("cpu")
KB = 1_000


def test_the_peak_is_that_of_tensors_alive_at_once() -> None:
    before = torch.zeros(KB, dtype=torch.uint8)
    with peak_memory(CPU) as peak:
        first = torch.zeros(3 * KB, dtype=torch.uint8)
        second = first + 1  # 6 kB
        del first
        third = second[: 2 * KB] * 2  # 5 kB
        before.add_(1)
        before.view(10, 100).t()
        second.mul_(2)
        del second, third
        torch.zeros(4 * KB, dtype=torch.uint8)
    assert peak.bytes == 6 * KB


def test_what_backward_keeps_counts() -> None:
    weight = torch.ones(250, requires_grad=True)
    with peak_memory(CPU) as peak:
        (weight.exp().exp().sum()).backward()
    # Two exponentials kept, and the gradient of the first beside them; the sum and its gradient are 8 bytes.
    assert 3 * KB <= peak.bytes <= 3 * KB + 16


class OutOfMemory(nn.Module):
    """Stands for a device that cannot hold more than some images."""

    def __init__(self, inner: nn.Module, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.inner, self.most = inner, most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.tried: list[int] = []

    def forward(self, y_BCHW: Tensor, *more: Tensor) -> Any:
        self.tried.append(len(y_BCHW))
        made = self.inner(y_BCHW, *more)
        if len(y_BCHW) > self.most:
            raise self.error
        return made


def feed() -> Feed:
    return Feed(lambda seen: Fed(batch(seen), batch(9, count=2)), None)


@pytest.mark.parametrize(
    ("most", "parts", "tried"), [(6, 1, [6]), (5, 2, [6, 3, 3]), (1, 6, [6, 3, 2, *[1] * 6])]
)
def test_a_batch_is_cut_into_as_few_parts_as_fit_and_nothing_is_learned(
    make_learner: MakeLearner, most: int, parts: int, tried: list[int]
) -> None:
    learner = make_learner(train={"accumulate": "auto"}, model={"norm": "batch"})
    train(learner, 1)
    before = state_of(learner)
    small = learner.pass_through = OutOfMemory(learner.pass_through, most)
    assert memory._fewest_parts(learner, feed(), 0, Processes(), list) == parts
    assert small.tried == tried
    assert_same(before, state_of(learner))
    assert all(p.grad is None for p in learner.named_parameters().values())


WAYS_TO_SAY_IT = [
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]


@pytest.mark.parametrize("error", WAYS_TO_SAY_IT, ids=str)
def test_more_parts_are_tried_whoever_found_no_memory(make_learner: MakeLearner, error: Exception) -> None:
    learner = make_learner(train={"accumulate": "auto"})
    learner.pass_through = OutOfMemory(learner.pass_through, 3, error)
    assert memory._fewest_parts(learner, feed(), 0, Processes(), list) == 2


def test_no_more_parts_are_tried_after_another_error(make_learner: MakeLearner) -> None:
    learner = make_learner(train={"accumulate": "auto"})
    broken = learner.pass_through = OutOfMemory(learner.pass_through, 3, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        memory._fewest_parts(learner, feed(), 0, Processes(), list)
    assert broken.tried == [6]


def test_a_part_that_another_process_cannot_hold_is_too_large_for_all(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([1, 1, 0])
    monkeypatch.setattr(Processes, "largest", lambda _self, number: max(number, next(answers)))
    learner = make_learner(train={"accumulate": "auto"})
    assert memory._fewest_parts(learner, feed(), 0, Processes(), list) == 3


def test_placeholders_count_and_single_images_that_do_not_fit_end_it(make_learner: MakeLearner) -> None:
    learner, held = make_learner(train={"accumulate": "auto"}), []

    def reserve() -> list[Tensor]:
        held.append(1)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        memory._fewest_parts(learner, feed(), 0, Processes(), reserve)
    assert len(held) == 4, "1, 2, 3 and 6 parts"


@pytest.mark.parametrize(("steps", "processes", "copies"), [(0, 1, 2), (1, 1, 0), (0, 4, 3), (1, 4, 1)])
def test_placeholders_stand_for_moments_buckets_and_a_margin(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch, steps: int, processes: int, copies: int
) -> None:
    device = SimpleNamespace(total_memory=20_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    learner = make_learner(train={"accumulate": "auto"})
    train(learner, steps)
    weights = sum(p.nbytes for p in learner.model.parameters())
    held = memory._reserve(learner, Processes(world_size=processes))()
    assert [tensor.nbytes for tensor in held] == [weights] * copies + [1_000]


def test_a_number_is_taken_as_it_is_and_the_cpu_is_not_measured(make_learner: MakeLearner) -> None:
    asked = make_learner(train={"accumulate": 3})
    asked.pass_through = OutOfMemory(asked.pass_through, 0)
    assert fit_parts(asked, feed(), 0, Processes()) == 3
    auto = make_learner(train={"accumulate": "auto"})
    auto.pass_through = OutOfMemory(auto.pass_through, 0)
    assert fit_parts(auto, feed(), 0, Processes()) == 1


SHORT = {"train.images": 64, "train.batch_size": 16, "train.checkpoint_every": 32, "train.validate_images": 4}


def test_running_out_of_memory_is_one_sentence_and_its_hint_lets_the_run_go_on(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.step

    def step(learner: Learner, *more: Any) -> None:
        if more[1] >= 32 and learner.parts == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        real(learner, *more)

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(CivaeError, match=r"^out of memory on cpu with 16 images at once, fp32$") as caught:
        loop.train(tiny_config(SHORT), tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 1
    hint = caught.value.hint or ""
    assert "--set train.accumulate=2 (the same training, 8 images at once)" in hint
    assert "--set train.checkpoint_activations=true" in hint
    assert "out of memory" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    wanted = tiny_config(SHORT | {"train.accumulate": 2, "train.checkpoint_activations": True})
    assert loop.train(wanted, tmp_path / "run", device="cpu").finished


def test_what_later_runs_out_of_memory_is_explained_by_the_parts_that_were_chosen(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(preparation, "most_parts", lambda *_: 16)
    monkeypatch.setattr(preparation, "fit_parts", lambda *_: 2)
    config = tiny_config(SHORT | {"train.accumulate": "auto"})
    with pytest.raises(CivaeError, match=r"^out of memory on cpu with 8 images at once") as caught:
        loop.train(config, tmp_path / "run", device="cpu")
    assert "train.accumulate=4 (the same training, 4 images at once)" in (caught.value.hint or "")

    def refuse(*_: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(preparation, "fit_parts", refuse)
    with pytest.raises(CivaeError, match="with 1 image at once") as caught:
        loop.train(config, tmp_path / "run", device="cpu")
    assert "train.accumulate" not in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("device", "accumulate", "most"), [("cuda", "auto", 3), ("cpu", "auto", 1), ("cuda", 2, 2)]
)
def test_the_largest_number_of_parts_tried_is_single_images_only_where_memory_is_measured(
    make_config: Callable[..., Config], device: str, accumulate: int | str, most: int
) -> None:
    train_config = make_config(train={"accumulate": accumulate}).train
    compute = Compute(torch.device(device), "fp32", False)
    assert most_parts(train_config, compute, Processes(world_size=2)) == most


@pytest.mark.parametrize(
    ("error", "explained"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError(), True),
        *((error, True) for error in WAYS_TO_SAY_IT),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_each_way_to_say_it_is_understood_and_no_other_error(
    make_config: Callable[..., Config], error: Exception, explained: bool
) -> None:
    with (
        pytest.raises(CivaeError if explained else RuntimeError),
        out_of_memory_explained(make_config(), Compute(CPU, "fp32", False), Processes(), 1),
    ):
        raise error


@pytest.mark.parametrize(
    ("train_settings", "data", "expected"),
    [
        ({}, {}, ["train.accumulate=2", "train.checkpoint_activations=true"]),
        ({"accumulate": 3}, {}, ["train.accumulate=6", "train.checkpoint_activations=true"]),
        ({"checkpoint_activations": True}, {}, ["train.accumulate=2", "model.width=4"]),
        ({"accumulate": 6, "checkpoint_activations": True}, {}, ["model.width=4"]),
        ({}, {"cache": "device"}, ["data.cache=ram", "train.accumulate=2"]),
    ],
)
def test_what_is_advised_helps_and_can_be_set(
    make_config: Callable[..., Config],
    train_settings: dict[str, Any],
    data: dict[str, Any],
    expected: list[str],
    tmp_path: Path,
) -> None:
    config = make_config(train=train_settings)
    config = config.model_copy(update={"data": config.data.model_copy(update=data)})
    parts = train_settings.get("accumulate", 1)
    hint = memory._explained(config, Compute(CPU, "fp32", False), Processes(), parts).hint or ""
    settings = [part.split(" ")[0] for part in hint.split("--set ")[1:]]
    assert settings == expected
    (tmp_path / "c.yml").write_text(
        "data: {path: data, treatment: Young}\ntrain: {batch_size: 6}\n", encoding="utf-8"
    )
    load_config([tmp_path / "c.yml"], settings)


def test_a_preview_says_how_many_images_go_at_once_and_measures_less_in_parts(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    whole = preview(tiny_config(), tmp_path / "run", device="cpu")
    parts = preview(tiny_config({"train.accumulate": 8}), tmp_path / "run", device="cpu")
    assert (whole.images_at_once, parts.images_at_once) == (32, 4)
    assert parts.memory_estimate_mib < 0.7 * whole.memory_estimate_mib
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    assert "with 4 images at once in each process" in parts.describe()


@pytest.mark.parametrize(
    ("device", "order"), [("cpu", ["measure", "step"]), ("cuda", ["try", "measure", "step"])]
)
def test_a_preview_measures_a_step_after_cudnn_has_chosen_its_algorithms(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    order: list[str],
) -> None:
    done: list[str] = []

    def noted(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*given: Any) -> Any:
            done.append(name)
            return act(*given)

        return acting

    @contextmanager
    def pretended(*given: Any, **more: Any) -> Iterator[Prepared]:
        with preparation.prepared(*given, **more) as ready:
            yield replace(ready, compute=Compute(torch.device(device), "fp32", False))

    @contextmanager
    def measured(_: torch.device) -> Iterator[Peak]:
        done.append("measure")
        yield Peak()

    plain = preview(tiny_config(), tmp_path / "run", device="cpu")
    monkeypatch.setattr(preview_module, "prepared", pretended)
    monkeypatch.setattr(preview_module, "peak_memory", measured)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(Learner, "try_gradients", noted("try", Learner.try_gradients))
    monkeypatch.setattr(Learner, "step", noted("step", Learner.step))
    assert preview(tiny_config(), tmp_path / "run", device="cpu").loss == plain.loss
    assert done == order


def test_batches_of_each_process_are_cut_evenly_or_refused() -> None:
    Processes(world_size=2).require_even_shares(12, parts=3)
    with pytest.raises(
        CivaeError, match=r"train.accumulate: 4 equal parts cannot be made of the 6 images of each of 2"
    ) as caught:
        Processes(world_size=2).require_even_shares(12, parts=4)
    assert caught.value.hint == "for example --set train.accumulate=3"


def test_a_batch_too_large_to_read_is_explained_too(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(TrainingBatches, "at", full)
    with pytest.raises(CivaeError, match="out of memory on cpu"):
        preview(tiny_config(), tmp_path / "run", device="cpu")
