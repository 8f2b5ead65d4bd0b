"""Batches prepared ahead: the same ones, each made once, and handed over before they are used."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from learners import batch

from civae_core.data.batches import Batch
from civae_core.training.feed import CudaLane, Fed, Feed, lane_of


class FakeLane:
    """A lane that notes what happens in it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def copying(self) -> Iterator[None]:
        self.events.append("in")
        yield
        self.events.append("out")

    def hand_over(self, fed: Fed) -> None:
        self.events.append(f"hand over {len(fed.batch)}")


class Maker:
    def __init__(self, lane: FakeLane | None) -> None:
        self.lane = lane
        self.made: list[int] = []

    def __call__(self, images_seen: int) -> Fed:
        self.made.append(images_seen)
        if self.lane is not None:
            self.lane.events.append(f"make {images_seen}")
        return Fed(batch(images_seen, count=images_seen + 1), None)


def test_without_a_lane_batches_are_made_when_asked_for_and_none_ahead() -> None:
    make = Maker(None)
    feed = Feed(make, None)
    for seen in (0, 6, 12):
        assert len(feed.at(seen).batch) == seen + 1
        feed.prepare(seen + 6)
    assert make.made == [0, 6, 12]


def test_in_a_lane_each_batch_is_made_once_before_it_is_asked_for() -> None:
    lane = FakeLane()
    make = Maker(lane)
    feed = Feed(make, lane)
    for seen in (0, 6, 12):
        assert len(feed.at(seen).batch) == seen + 1
        lane.events.append("step")
        feed.prepare(seen + 6)
    assert make.made == [0, 6, 12, 18]
    first, *_ = lane.events, None
    assert first[:10] == [
        "in",
        "make 0",
        "out",
        "hand over 1",
        "step",
        "in",
        "make 6",
        "out",
        "hand over 7",
        "step",
    ]


def test_a_run_that_goes_back_gets_the_batch_it_asks_for() -> None:
    lane = FakeLane()
    make = Maker(lane)
    feed = Feed(make, lane)
    feed.at(12)
    feed.prepare(18)
    assert len(feed.at(6).batch) == 7
    assert len(feed.at(18).batch) == 19, "what was prepared in vain is not kept"
    assert make.made == [12, 18, 6, 18]


def test_the_cpu_has_no_lane() -> None:
    assert lane_of(torch.device("cpu")) is None


class FakeStream:
    """Notes which stream waits for which."""

    def __init__(self, device: object) -> None:
        self.device = device
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited_for.append(other)


class FakeTensor:
    """Notes the streams for which its memory is kept."""

    def __init__(self) -> None:
        self.kept_for: list[object] = []

    def record_stream(self, stream: object) -> None:
        self.kept_for.append(stream)


def test_on_cuda_computation_waits_for_the_copy_and_memory_is_kept_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computing = FakeStream("cuda:0")
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: computing)
    entered: list[object] = []
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: entered.append(stream) or nullcontext())
    lane = lane_of(torch.device("cuda", 0))
    assert isinstance(lane, CudaLane)
    with lane.copying():
        batch_of, beside = (Batch(*(FakeTensor() for _ in range(5))) for _ in range(2))  # type: ignore[arg-type]
    lane.hand_over(Fed(batch_of, beside))
    assert entered == computing.waited_for == [lane._stream]
    kept = [values for made in (batch_of, beside) for values in vars(made).values()]
    assert len(kept) == 10
    assert all(values.kept_for == [computing] for values in kept)
