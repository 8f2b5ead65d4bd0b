"""`train --dry-run`: everything that can go wrong before training, tried; nothing written."""

from dataclasses import asdict, dataclass
from typing import Any

from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.data.labelled import labelled_rows
from civae_core.training.device import Compute, choose_device
from civae_core.training.distributed import Processes
from civae_core.training.learner import Learner
from civae_core.training.setup import assign_roles, make_batches, make_model, validation_split

COPIES_OF_WEIGHTS = 5
"""Weights, gradients, two moments of AdamW, and the moving average."""


@dataclass(frozen=True)
class Preview:
    """What a training run would be."""

    compute: str
    training_images: int
    validation_images: int
    parameters: int
    predictor_parameters: int
    memory_estimate_mib: float
    loss: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        return "\n".join(
            [
                f"device       {self.compute}",
                f"data         {self.training_images:,} training and {self.validation_images:,} validation images",
                f"parameters   {self.parameters:,} and {self.predictor_parameters:,} in the attribute predictor",
                f"memory       about {self.memory_estimate_mib:,.0f} MiB for weights, optimiser and one batch",
                f"first loss   {self.loss}",
            ]
        )


def preview(config: Config, *, device: str = "auto") -> Preview:
    """Resolves the config, opens the data, and takes one step on a real batch in memory.

    Raises:
        UsageError, DataError: as `train` would.
    """
    data = PreparedData.open(config.data.path)
    roles = assign_roles(config, data)
    held_out = labelled_rows(data, roles, validation_split(data))
    compute = Compute.choose(choose_device(device), config.train.precision, config.train.channels_last)
    learner = Learner(make_model(config, roles, data), config, roles, compute)
    batches = make_batches(config, roles, data, compute, Processes())

    kept = _ActivationBytes(learner)
    learner.step(batches.at(0), 0)
    means, _, _ = learner.tally.read()

    predictor = learner.model.predictor
    in_predictor = sum(p.numel() for p in predictor.parameters()) if predictor is not None else 0
    everything = sum(p.numel() for p in learner.model.parameters())
    memory = COPIES_OF_WEIGHTS * 4 * everything + kept.total
    return Preview(
        compute=compute.describe(),
        training_images=len(batches.rows_N),
        validation_images=min(len(held_out), config.train.validate_images),
        parameters=everything - in_predictor,
        predictor_parameters=in_predictor,
        memory_estimate_mib=round(memory / 2**20, 1),
        loss=round(means["loss"], 2) if means else None,
    )


class _ActivationBytes:
    """Adds up the outputs of all layers of one forward pass: what backward has to keep."""

    def __init__(self, learner: Learner) -> None:
        self.total = 0
        for module in learner.model.modules():
            if not list(module.children()):
                module.register_forward_hook(self._count)

    def _count(self, _module: Any, _inputs: Any, output: Any) -> None:
        if hasattr(output, "element_size"):
            self.total += output.numel() * output.element_size()
