"""What the tests of reliability share: short runs, and something that happens in the middle of one."""

from collections.abc import Callable

import pytest

from civae_core.config.schema import Config
from civae_core.data.batches import Batch, TrainingBatches

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
def _without_sample_grids(no_sample_grids: None) -> None:
    """Skip sample grids in all tests of this folder."""


@pytest.fixture
def short_config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """Six steps, three checkpoints, two lines of metrics; settings by dotted key."""
    return lambda **changes: tiny_config(SHORT | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Run an action, once, when the batch after a given number of images is about to be made."""
    real = TrainingBatches.at

    def install(images: int, act: Callable[[], object]) -> None:
        def at(batches: TrainingBatches, images_seen: int) -> Batch:
            if images_seen == images:
                monkeypatch.setattr(TrainingBatches, "at", real)
                act()
            return real(batches, images_seen)

        monkeypatch.setattr(TrainingBatches, "at", at)

    return install
