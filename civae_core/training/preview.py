"""`train --dry-run`: try everything that can go wrong before training, and write nothing."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from civae_core.config import Config
from civae_core.training.distributed import joined
from civae_core.training.memory import held_bytes, peak_memory
from civae_core.training.preparation import prepared
from civae_core.training.run_folder import RunFolder


@dataclass(frozen=True)
class Preview:
    """What a training run would do."""

    compute: str
    training_images: int
    validation_images: int
    parameters: int
    predictor_parameters: int
    memory_estimate_mib: float
    """Peak memory of a training step, per process."""
    images_at_once: int
    """Images that each process computes at once: its share of a batch divided by `train.accumulate`."""
    loss: float | None
    images_from: int
    """Images seen by the checkpoint from which the run would continue, else 0."""
    images_to: int
    """Images at which it would stop."""
    pairing_images: int
    """Images on which it would then pair noises; 0 if it would not."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _at_once(self) -> str:
        images = self.images_at_once
        return f"with {images} image{'s' * (images != 1)} at once in each process"

    def _span(self) -> str:
        done = f"{self.images_from:,} are done"
        then = f", then pairing noises on {self.pairing_images:,}" if self.pairing_images else ""
        if self.images_from >= self.images_to:
            return done + then if then else f"nothing to do: {done}"
        begun = f"continuing from {self.images_from:,} " if self.images_from else ""
        return f"{begun}to {self.images_to:,}{then}"

    def describe(self) -> str:
        return "\n".join(
            [
                f"device       {self.compute}",
                f"data         {self.training_images:,} training and {self.validation_images:,} validation images",
                f"images       {self._span()}",
                f"parameters   {self.parameters:,} and {self.predictor_parameters:,} in the attribute predictor",
                f"memory       about {self.memory_estimate_mib:,.0f} MiB, {self._at_once()}",
                f"first loss   {self.loss}",
            ]
        )


def preview(
    config: Config, out: Path, *, device: str = "auto", resume: str = "auto", stop_at: int | None = None
) -> Preview:
    """Take every step of `train` up to the first write, and one training step on a real batch in memory.

    Args: as for `train`.

    Raises:
        UsageError, DataError: as `train` would.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        ready = stack.enter_context(
            prepared(config, RunFolder(out), processes, device=device, resume=resume, stop_at=stop_at)
        )
        learner, seen, device_used = ready.learner, ready.counters.images_seen, ready.compute.device
        before = 0
        if device_used.type == "cuda":
            # In a first step, cuDNN tries all its algorithms, some of which take more memory than any later step.
            learner.try_gradients(ready.feed.at(seen), seen, learner.parts)
        else:
            before = held_bytes(learner)
        with peak_memory(device_used) as peak:
            fed = ready.feed.at(seen)
            learner.step(fed.batch, seen, fed.partly)
        means, _, _ = learner.tally.read()

    predictor = learner.model.predictor
    in_predictor = sum(p.numel() for p in predictor.parameters()) if predictor is not None else 0
    everything = sum(p.numel() for p in learner.model.parameters())
    pairs = learner.average.pairing is not None and not ready.counters.paired
    return Preview(
        compute=ready.compute.describe(),
        training_images=len(ready.batches.rows_N),
        validation_images=min(len(ready.held_rows), config.train.validate_images),
        parameters=everything - in_predictor,
        predictor_parameters=in_predictor,
        memory_estimate_mib=round((before + peak.bytes) / 2**20, 1),
        images_at_once=config.train.batch_size // processes.world_size // learner.parts,
        loss=round(means["loss"], 2) if means else None,
        images_from=seen,
        images_to=ready.end,
        pairing_images=config.train.images_to_pair
        if pairs and max(seen, ready.end) >= config.train.images
        else 0,
    )
