"""Orders of an epoch: permutations, functions of the position alone; in blocks, with reads that stay together."""

import pytest
import torch

from civae_core.data.order import BlockOrder, Order, ShuffledOrder, make_order

COUNT, BLOCK, AT_ONCE = 103, 8, 3


def blocks(seed: int = 0, count: int = COUNT) -> BlockOrder:
    return BlockOrder(count, seed, block=BLOCK, at_once=AT_ONCE)


def test_the_config_names_them() -> None:
    assert isinstance(make_order("full", 5, 0), ShuffledOrder)
    order = make_order("blocks", 200_000, 0)
    assert isinstance(order, BlockOrder)
    assert (order.block, order.at_once) == (1_024, 64)


@pytest.mark.parametrize("make", [ShuffledOrder, lambda count, seed: blocks(seed, count)])
@pytest.mark.parametrize("count", [1, 7, 8, 24, COUNT])
def test_each_epoch_is_a_permutation(make: type[Order], count: int) -> None:
    epochs = make(count, 0).items(0, 4 * count).reshape(4, count)  # type: ignore[call-arg]
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(count).expand(4, count))


def test_no_two_epochs_or_seeds_are_alike_in_blocks() -> None:
    epochs = blocks().items(0, 5 * COUNT).reshape(5, COUNT)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 5
    assert not torch.equal(blocks(seed=1).items(0, COUNT), epochs[0])


def test_blocks_are_a_function_of_position_alone() -> None:
    whole, wandering = blocks().items(0, 400), blocks()
    for start, length in ((57, 9), (0, 5), (390, 10), (19, 2), (95, 20), (0, 400), (201, 150)):
        assert torch.equal(wandering.items(start, length), whole[start : start + length])


def test_a_window_reads_few_stretches_and_mixes_them() -> None:
    """A window of 24 items has at most 5 runs of neighbours, is not in order, and comes from all over the epoch."""
    epoch = blocks().items(0, COUNT)
    runs, order = [], []
    for window in epoch[: COUNT // 24 * 24].split(BLOCK * AT_ONCE)[:3]:
        if len({*window.tolist()}) == BLOCK * AT_ONCE:
            jumps = window.sort().values.diff() > 1
            runs.append(int(jumps.sum()) + 1)
            order.append(torch.equal(window, window.sort().values))
    assert len(runs) == 3
    assert max(runs) <= AT_ONCE + 2
    assert not any(order)
    reached = [int(window.max() - window.min()) for window in epoch.split(BLOCK * AT_ONCE)[:3]]
    assert max(reached) > 2 * BLOCK * AT_ONCE


def test_neighbours_are_parted_in_another_epoch() -> None:
    """Blocks begin elsewhere: with fixed borders, items 0 and 1 would share a window in every epoch."""
    together = 0
    for epoch in range(60):
        window_of = {}
        for place, item in enumerate(blocks(count=96).items(epoch * 96, 96).tolist()):
            window_of[item] = place // (BLOCK * AT_ONCE)
        together += window_of[0] == window_of[1]
    assert 30 < together < 60


def test_a_hundred_million_images_are_ordered_without_a_list_of_them() -> None:
    order = BlockOrder(100_000_000, 0)
    items = order.items(99_999_900, 200)
    assert 0 <= items.min() <= items.max() < 100_000_000
    held = [tensor for values in order._epochs._values.values() for tensor in values]
    held += list(order._windows._values.values())
    assert sum(tensor.nbytes for tensor in held) < 8_000_000
