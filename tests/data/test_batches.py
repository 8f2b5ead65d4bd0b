"""Batches: a pure function of the images seen, whatever the number of processes and the cache."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from civae_core.data import batches as module
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.data.order import ShuffledOrder
from civae_core.errors import CivaeError

COUNT, BATCH, LATENT = 20, 6, 3


class FakeImages:
    """Stands for prepared data: image i has (i, column) in its first two channels, so it can be told apart."""

    def __init__(self) -> None:
        columns = torch.arange(4, dtype=torch.uint8).expand(COUNT * 2, 4, 4)
        numbers = torch.arange(COUNT * 2, dtype=torch.uint8)[:, None, None].expand(-1, 4, 4)
        self.all = torch.stack([numbers, columns, torch.zeros_like(columns)], dim=1)
        self.reads = 0

    def images(self, rows: Tensor) -> Tensor:
        self.reads += 1
        return self.all[rows]


def batches(
    data: FakeImages | None = None, rank: int = 0, world_size: int = 1, **changes: object
) -> TrainingBatches:
    settings: dict = {
        "batch_size": BATCH,
        "latent": LATENT,
        "flip": True,
        "cache": "mmap",
        "seed": 0,
        "device": torch.device("cpu"),
    }
    rows_N = 2 * torch.arange(COUNT)
    return TrainingBatches(
        data or FakeImages(),  # type: ignore[arg-type]
        rows_N,
        torch.stack([rows_N, -rows_N], dim=1).float(),
        (rows_N % 4 == 0).float()[:, None],
        rows_N.float() / 10,
        rank=rank,
        world_size=world_size,
        **settings | changes,
    )


def numbers(batch: Batch) -> list[int]:
    return (batch.y_BCHW[:, 0, 0, 0] * 255).round().int().tolist()


def assert_equal(a: Batch, b: Batch) -> None:
    for name, values in vars(a).items():
        assert torch.equal(values, vars(b)[name]), name


def test_each_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    order = ShuffledOrder(COUNT, seed=0)
    epochs = order.items(0, 3 * COUNT).reshape(3, COUNT)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(COUNT).expand(3, COUNT))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    assert not torch.equal(ShuffledOrder(COUNT, seed=1).items(0, COUNT), epochs[0])


def test_the_order_is_a_function_of_position_alone() -> None:
    whole = ShuffledOrder(COUNT, seed=3).items(0, 100)
    wandering = ShuffledOrder(COUNT, seed=3)
    for start, length in ((57, 9), (0, 5), (90, 10), (19, 2), (0, 100), (38, 45)):
        assert torch.equal(wandering.items(start, length), whole[start : start + length])
    assert wandering.items(0, 1).dtype == torch.int64


def test_a_batch_larger_than_the_data_takes_several_epochs() -> None:
    assert sorted(ShuffledOrder(4, seed=0).items(0, 12).tolist()) == sorted([*range(4)] * 3)


def test_a_batch_is_a_pure_function_of_the_images_seen() -> None:
    one, other = batches(), batches()
    later = [one.at(seen) for seen in range(0, 60, BATCH)][-1]
    assert_equal(later, other.at(54))
    assert_equal(one.at(0), other.at(0))


def test_images_and_labels_stay_together_in_raw_units() -> None:
    batch = batches().at(18)
    rows = torch.tensor(numbers(batch))
    assert torch.equal(batch.x_BX, torch.stack([rows, -rows], dim=1).float())
    assert torch.equal(batch.t_BT, (rows % 4 == 0).float()[:, None])
    assert torch.equal(batch.weights_B, rows.float() / 10)
    assert batch.y_BCHW.dtype == torch.float32
    assert batch.y_BCHW.shape == (BATCH, 3, 4, 4)
    assert 0 <= batch.y_BCHW.min() <= batch.y_BCHW.max() <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_one_global_sequence(world_size: int) -> None:
    for seen in (0, 6, 18, 54):
        common = batches().at(seen)
        shares = [batches(rank=rank, world_size=world_size).at(seen) for rank in range(world_size)]
        for name, values in vars(common).items():
            parts = [vars(share)[name] for share in shares]
            assert all(len(part) == BATCH // world_size for part in parts)
            assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), values), name


@pytest.mark.parametrize("cache", ["ram", "device"])
@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_the_cache_changes_nothing_but_the_reads(cache: str, shuffle: str) -> None:
    mapped, cached = FakeImages(), FakeImages()
    by_map = batches(mapped, shuffle=shuffle)
    by_cache = batches(cached, cache=cache, shuffle=shuffle, rank=0)
    for seen in (0, 6, 12, 18, 0):
        assert_equal(by_map.at(seen), by_cache.at(seen))
    assert (mapped.reads, cached.reads) == (5, 1)


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_a_cache_is_filled_piece_by_piece(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COPIED_AT_ONCE", 7)
    data = FakeImages()
    cached = batches(data, cache=cache)
    assert data.reads == 3
    for seen in (0, 18):
        assert_equal(batches().at(seen), cached.at(seen))


class NoHost(TorchDispatchMode):
    """Counts the images that a batch moves to the device, or reads from its caches on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].device != made.device:
            self.moved.append(args[0])
        return made


@pytest.mark.parametrize(("cache", "images"), [("ram", 1), ("device", 0)])
def test_with_all_images_on_the_device_only_indices_flips_and_noise_go_there(cache: str, images: int) -> None:
    """On `meta`, a device that stores nothing: whatever has no values cannot have come back to the host either."""
    there = batches(cache=cache, device=torch.device("meta"))
    with NoHost() as counted:
        batch = there.at(6)
    assert {values.device.type for values in vars(batch).values()} == {"meta"}
    assert batch.y_BCHW.shape == (BATCH, 3, 4, 4)
    assert sum(values.dtype == torch.uint8 for values in counted.moved) == images
    if cache == "device":
        assert [values.dtype for values in counted.moved] == [torch.int64, torch.bool, torch.float32]


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_what_is_on_the_gpu_already_is_not_moved_whether_or_not_its_number_is_named(name: str) -> None:
    with FakeTensorMode():
        values = torch.empty(3, device="cuda")
        assert TrainingBatches._to(torch.device(name), values) is values


def test_images_that_do_not_fit_on_the_device_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(
        CivaeError, match=r"data.cache device: 0.0 GB of images do not fit into the memory of"
    ) as caught:
        batches(cache="device")
    assert "mmap" in (caught.value.hint or "")
    assert caught.value.exit_code == 1


def test_about_half_the_images_are_mirrored_at_random_and_whole() -> None:
    plain, flipped = batches(flip=False), batches()
    mirrored = 0
    for seen in range(0, 40 * BATCH, BATCH):
        a_BCHW, b_BCHW = plain.at(seen).y_BCHW, flipped.at(seen).y_BCHW
        for a_CHW, b_CHW in zip(a_BCHW, b_BCHW, strict=True):
            is_mirror = torch.equal(a_CHW.flip(2), b_CHW)
            assert is_mirror or torch.equal(a_CHW, b_CHW)
            mirrored += is_mirror
    assert 0.4 < mirrored / (40 * BATCH) < 0.6


def test_noise_is_standard_normal_and_new_for_every_batch() -> None:
    noise = torch.stack([batches().at(seen).noise_BZ for seen in range(0, 100 * BATCH, BATCH)])
    assert noise.shape == (100, BATCH, LATENT)
    assert abs(noise.mean().item()) < 0.1
    assert abs(noise.std().item() - 1) < 0.1
    assert len(noise.flatten(1).unique(dim=0)) == 100


def test_channels_last_holds_the_same_values() -> None:
    plain, last = batches().at(6), batches(channels_last=True).at(6)
    assert last.y_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert_equal(plain, last)
