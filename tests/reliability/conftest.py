"""What tests of reliability share: short runs, something that happens amid one, and images that are spoilt."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from civae_core.config.schema import Config
from civae_core.data.batches import Batch, TrainingBatches
from civae_core.training.heldout import HeldOut

SHORT = {
    "model.stages": [1, 2],
    "model.layers": 4,
    "train.images": 96,
    "train.batch_size": 16,
    "train.validate_images": 4,
    "train.checkpoint_every": 32,
    "train.log_every": 48,
}


@pytest.fixture(autouse=True)
def no_sample_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids change no weight, and drawing them takes longer than training here."""
    monkeypatch.setattr(HeldOut, "save_grid", lambda *_: None)


@pytest.fixture
def short_config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """Six steps, three checkpoints, two lines of metrics; settings by dotted key."""
    return lambda **changes: tiny_config(SHORT | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Lets something happen, once, when the batch after so many images is about to be made."""
    real = TrainingBatches.at

    def install(images: int, act: Callable[[], object]) -> None:
        def at(batches: TrainingBatches, images_seen: int) -> Batch:
            if images_seen == images:
                monkeypatch.setattr(TrainingBatches, "at", real)
                act()
            return real(batches, images_seen)

        monkeypatch.setattr(TrainingBatches, "at", at)

    return install


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Makes the images of those batches NaN whose position a predicate picks."""
    real = TrainingBatches.at

    def install(is_bad: Callable[[int], bool]) -> None:
        def at(batches: TrainingBatches, images_seen: int) -> Batch:
            batch = real(batches, images_seen)
            nan = torch.full_like(batch.y_BCHW, torch.nan)
            return replace(batch, y_BCHW=nan) if is_bad(images_seen) else batch

        monkeypatch.setattr(TrainingBatches, "at", at)

    return install
