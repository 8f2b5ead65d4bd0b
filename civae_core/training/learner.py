"""One optimiser step: forward, objective, backward, clip, update, average. No device synchronisation inside."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from civae_core.attributes import AttributeRoles
from civae_core.config import Config, TrainConfig
from civae_core.data.batches import Batch
from civae_core.model import IntactVAE
from civae_core.objective import objective, penalty, predictor_loss
from civae_core.penalties import TrainingPass, make_critics, penalty_metrics
from civae_core.randomness import seed_for
from civae_core.training import schedules
from civae_core.training.device import Compute
from civae_core.training.ema import MovingAverage, averaged_copy
from civae_core.training.feed import Fed
from civae_core.training.optimizers import AdamW
from civae_core.training.recompute import recompute_activations

log = logging.getLogger(__name__)

METRICS = ("loss", "reconstruction", "kl", "mse", "sigma", "predictor_loss", "grad_norm")
RATE_AFTER_SETBACK = 0.25
"""Factor by which the learning rate is lowered each time that training diverges and is set back."""
IGNORING_FOUND_INF = ("mps",)
"""Types of devices whose fused AdamW may step in spite of `found_inf`, as PyTorch's did on MPS until mid 2026."""
SIGMA_LR_FACTOR = 10.0
"""Factor by which log σ learns faster: unlike weights, σ moves by orders of magnitude in a few hundred steps."""


@dataclass
class Tally:
    """Sums since the last line of metrics, kept on the device: one per name [M], and step counts."""

    names: tuple[str, ...]
    sums_M: Tensor
    good: Tensor
    skipped: Tensor
    skipped_in_a_row: Tensor

    @classmethod
    def empty(cls, names: Sequence[str], device: torch.device) -> "Tally":
        zero = torch.zeros((), device=device)
        sums_M = torch.zeros(len(names), device=device)
        return cls(tuple(names), sums_M, zero, zero.clone(), zero.clone())

    def add(self, values_M: Tensor, bad: Tensor) -> None:
        self.sums_M += torch.where(bad, torch.zeros_like(values_M), values_M)
        self.good += (~bad).float()
        self.skipped += bad.float()
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * bad.float()

    def read(self) -> tuple[dict[str, float], int, int]:
        """Means over good steps, steps skipped, steps skipped in a row; the only synchronisation per line."""
        *totals, good, skipped, in_a_row = self.values().tolist()
        means = {name: total / good for name, total in zip(self.names, totals, strict=True)} if good else {}
        return means, int(skipped), int(in_a_row)

    def values(self) -> Tensor:
        """All sums in one vector, to be stored: the metrics, then good, skipped and consecutively skipped steps."""
        return torch.cat([self.sums_M, torch.stack([self.good, self.skipped, self.skipped_in_a_row])])

    def load(self, values: Tensor) -> None:
        """Continue from stored sums of the same names."""
        self.sums_M.copy_(values[:-3])
        for sums, value in zip((self.good, self.skipped, self.skipped_in_a_row), values[-3:], strict=True):
            sums.copy_(value)

    def restart(self) -> None:
        """Begin the next line; the count of steps skipped in a row continues."""
        for sums in (self.sums_M, self.good, self.skipped):
            sums.zero_()


class Learner:
    """Weights, their average, the optimiser and the scaler, with the step that advances them.

    `critics` are the networks that penalties train for themselves. They are optimised and stored with the state, but
    neither averaged nor part of the model.

    A step with a non-finite gradient changes neither weights, batch statistics nor optimiser: the fused AdamW reads
    this from the flag that a GradScaler uses, on the device, without asking the host. Only on devices where it may
    ignore the flag (`IGNORING_FOUND_INF`), the host waits for the flag and does not call it.
    """

    def __init__(self, model: IntactVAE, config: Config, roles: AttributeRoles, compute: Compute) -> None:
        layout = torch.channels_last if compute.channels_last else torch.contiguous_format
        self.model = model.to(compute.device).to(memory_format=layout).train()
        self.average = averaged_copy(self.model)
        self.moving_average = MovingAverage(self.average, self.model)
        if config.train.checkpoint_activations:
            recompute_activations(self.model)
        self.config, self.roles, self.compute = config, roles, compute
        self.critics = self._fresh_critics()
        own_pass = TrainingPass(self.model, self.critics, config.loss, roles)
        self.pass_through: nn.Module = own_pass.to(compute.device)
        self.surprise = own_pass.of_inputs
        self.optimizer = make_optimizer(self.named_parameters(), config.train)
        self.scaler = self._fresh_scaler()
        self.tally = Tally.empty((*METRICS, *penalty_metrics(config.loss)), compute.device)
        self.rate_factor = 1.0  # below 1 once training has diverged
        self.parts = parts_asked_for(config.train)
        self.replays_graphs = False
        self.dimensions = model.channels * model.size**2
        self.clipped_apart = self._clipped_apart()
        self.batch_statistics = self._batch_statistics()

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is optimised: the model's parameters by name, and the critics' as `critics.…`."""
        critics = {f"critics.{name}": parameter for name, parameter in self.critics.named_parameters()}
        return dict(self.model.named_parameters()) | critics

    def start_over(self, fresh: IntactVAE) -> None:
        """Reset everything to the state before the first step, with the weights of `fresh`; wrappers stay."""
        for network in (self.model, self.average):
            network.load_state_dict(fresh.state_dict())
        self.critics.load_state_dict(self._fresh_critics().state_dict())
        self.optimizer.state.clear()
        self.scaler = self._fresh_scaler()
        self.tally.load(torch.zeros_like(self.tally.values()))
        self.lower_rate(0)

    def forget_pairing(self) -> None:
        """Leave latent noises unpaired again, as before the last step of training."""
        for pairing in (self.model.pairing, self.average.pairing):
            if pairing is not None:
                pairing.forget()

    def adopt_pairing(self) -> None:
        """Copy the pairing of the averaged weights to the trained ones, so that both agree in a checkpoint."""
        assert self.model.pairing is not None
        assert self.average.pairing is not None
        self.model.pairing.load_state_dict(self.average.pairing.state_dict())

    def lower_rate(self, setbacks: int) -> None:
        """Set how much lower the learning rate is than scheduled after this many setbacks."""
        self.rate_factor = RATE_AFTER_SETBACK**setbacks

    def _fresh_critics(self) -> nn.ModuleDict:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "critics"))
            return make_critics(config.loss, self.roles, config.model.dimensions).to(self.compute.device)

    def _fresh_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.compute.device.type, enabled=self.compute.precision == "fp16")

    def wrap(self, *, compiled: bool | Literal["graphs"], distributed: bool) -> None:
        """Wrap the pass that `step` makes in torch.compile and DistributedDataParallel, as asked.

        Args:
            compiled: `graphs` also records kernels as CUDA graphs, on a device that has them.
        """
        if compiled:
            mode = None
            if compiled == "graphs" and self.compute.device.type == "cuda":
                mode = "reduce-overhead"
                self.keep_gradients_in_place()
            elif compiled == "graphs":
                log.warning(
                    "train.compile graphs: %s has no CUDA graphs, so kernels are not replayed",
                    self.compute.device.type,
                )
            self.pass_through = torch.compile(self.pass_through, mode=mode)  # type: ignore[assignment]
        if distributed:
            ids = [self.compute.device.index] if self.compute.device.type == "cuda" else None
            wrapped = nn.parallel.DistributedDataParallel(self.pass_through, device_ids=ids)
            # All buffers are alike from now on, and only batch statistics change.
            wrapped.broadcast_buffers = bool(self.batch_statistics)
            self.pass_through = wrapped

    def step(self, batch: Batch, images_seen: int, partly: Batch | None = None) -> None:
        """Make one update on `batch`, with schedules evaluated at `images_seen`.

        Only the attribute predictor learns from `partly`, images that lack labels, and only the labels they have.
        """
        train = self.config.train
        before = [buffer.clone() for buffer in self.batch_statistics]
        values = self._add_gradients(batch, images_seen, partly, self.parts)
        norm = values["grad_norm"] = self._clip(train.grad_clip)
        bad = ~torch.isfinite(norm)
        self._set_learning_rate(images_seen)
        self._update(bad)
        for buffer, kept in zip(self.batch_statistics, before, strict=True):
            buffer.copy_(torch.where(bad, kept, buffer))
        self._forget_gradients()
        decay = schedules.ema_decay(images_seen, halflife=train.ema_halflife, batch_size=train.batch_size)
        self.moving_average.update(decay)
        self.tally.add(torch.stack([values[name].detach().float() for name in self.tally.names]), bad)

    def try_gradients(self, fed: Fed, images_seen: int, parts: int) -> None:
        """Run what takes much memory in a step, with a batch in `parts` parts; nothing is learned from it.

        Raises:
            RuntimeError: it does not fit; `is_out_of_memory` is true of it.
        """
        before = [buffer.clone() for buffer in self.batch_statistics]
        try:
            self._add_gradients(fed.batch, images_seen, fed.partly, parts)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, kept in zip(self.batch_statistics, before, strict=True):
                buffer.copy_(kept)

    def _add_gradients(
        self, batch: Batch, images_seen: int, partly: Batch | None, parts: int
    ) -> dict[str, Tensor]:
        """Add up gradients of a batch's mean loss, part by part; return what is measured, as means over parts.

        Processes exchange gradients once, in the last part's backward pass.
        """
        beta = schedules.betas(images_seen, self.config, self.compute.device)
        besides: Sequence[Batch | None] = [None] * parts if partly is None else partly.split(parts)
        sums: dict[str, Tensor] = {}
        for number, (part, beside) in enumerate(zip(batch.split(parts), besides, strict=True)):
            beside = beside if beside is not None and len(beside) else None
            with nullcontext() if number == parts - 1 else self._keeping_gradients_here():
                total, values = self._loss(part, beside, beta)
                self.scaler.scale(total / parts).backward()
            for name, value in values.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return {name: value / parts for name, value in sums.items()}

    def _keeping_gradients_here(self) -> AbstractContextManager[object]:
        wrapped = self.pass_through
        apart = isinstance(wrapped, nn.parallel.DistributedDataParallel)
        return wrapped.no_sync() if apart else nullcontext()  # type: ignore[operator]

    def _loss(
        self, batch: Batch, partly: Batch | None, beta: float | Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a mean over the images of a batch, and the values to report."""
        loss = self.config.loss
        if self.replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with self.compute.autocast():
            more = () if partly is None else (partly.y_BCHW,)
            result = self.pass_through(
                batch.y_BCHW, batch.x_BX, batch.t_BT, batch.noise_BZ, batch.weights_B, *more
            )
        output = result.output
        terms = objective(self.config.objective, batch.y_BCHW, output, beta, batch.weights_B, loss.free_bits)
        # Per pixel and channel, so that gradients keep their size across resolutions; the original's already is.
        scale = 1.0 if self.config.objective == "original" else 1.0 / self.dimensions
        total = terms.loss * scale
        attribute_loss = torch.zeros_like(total)
        if output.predicted_BA is not None:
            attribute_loss = predictor_loss(output.predicted_BA, batch.a_BA, self.surprise)
            if partly is not None and result.partly_PA is not None:
                # Per image of the batch, as above, so that labels count the same and processes' means add up.
                attribute_loss = attribute_loss + predictor_loss(
                    result.partly_PA, partly.a_BA, self.surprise, images=len(batch.y_BCHW)
                )
            total = total + attribute_loss
        if result.penalties:
            total = total + penalty(result.penalties, loss, batch.weights_B) * scale
        for own_B in result.own_losses.values():
            total = total + (own_B * batch.weights_B).mean()

        values = {
            "loss": terms.loss,
            "reconstruction": terms.reconstruction,
            "kl": terms.kl,
            "mse": terms.squared_error,
            "sigma": torch.exp(output.likelihood.log_sigma.detach()).mean(),
            "predictor_loss": attribute_loss,
        }
        for name, value_B in (result.penalties | result.own_losses).items():
            values[name] = (value_B * batch.weights_B).mean()
        # A non-finite loss makes every gradient NaN on all processes, even if the gradients here were finite.
        return total * torch.where(total.isfinite(), 1.0, torch.nan), values

    def keep_gradients_in_place(self) -> None:
        """Add gradients to permanent tensors, which are set to zero between steps instead of released.

        A recorded graph always writes its results to the same place. If these were the gradients themselves, those of
        a batch's first part would be overwritten by the next.
        """
        self.replays_graphs = True
        for parameter in self.named_parameters().values():
            parameter.grad = torch.zeros_like(parameter)

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=not self.replays_graphs)

    def _clip(self, limit: float) -> Tensor:
        """Clip VAE, predictor and critics apart, so that none scales another.

        Returns:
            The VAE's norm, or a non-finite number if any of the norms is.
        """
        self.scaler.unscale_(self.optimizer)
        norm, *others = (nn.utils.clip_grad_norm_(parameters, limit) for parameters in self.clipped_apart)
        for other in others:
            norm = norm + 0 * other  # non-finite if any of them is
        return norm

    def _clipped_apart(self) -> list[list[nn.Parameter]]:
        """Parameters of the VAE, then of the predictor and the critics, if there are any.

        In the model's own order: the norm's last bits depend on it, and a resumed run must equal the original one.
        """
        predictor = self.model.predictor
        own = [] if predictor is None else list(predictor.parameters())
        apart = set(own)
        rest = [parameter for parameter in self.model.parameters() if parameter not in apart]
        return [rest, *(beside for beside in (own, list(self.critics.parameters())) if beside)]

    def _batch_statistics(self) -> list[Tensor]:
        """Running statistics that a forward pass updates and a skipped step must restore (`norm: batch`)."""
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        return [buffer for norm in norms for buffer in norm.buffers()]

    def _update(self, bad: Tensor) -> None:
        is_skipped_here = self.compute.device.type in IGNORING_FOUND_INF and bool(bad)
        if self.scaler.is_enabled():
            if not is_skipped_here:
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not is_skipped_here:
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()

    def _set_learning_rate(self, images_seen: int) -> None:
        train = self.config.train
        rate = self.rate_factor * schedules.learning_rate(
            images_seen, peak=train.lr, warmup=train.lr_warmup, total=train.images, decay=train.lr_decay
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]


def parts_asked_for(train: TrainConfig) -> int:
    """Number of parts in which each process computes its batch, before any memory is measured."""
    return 1 if train.accumulate == "auto" else train.accumulate


def make_optimizer(parameters: Mapping[str, nn.Parameter], train: TrainConfig) -> AdamW:
    """Make a fused AdamW: matrices and kernels decay, biases and norms do not, log σ learns faster."""
    decayed, plain, sigma = [], [], []
    for name, parameter in parameters.items():
        if name.endswith("log_sigma"):
            sigma.append(parameter)
        elif parameter.ndim >= 2:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay, "lr_factor": 1.0},
        {"params": plain, "weight_decay": 0.0, "lr_factor": 1.0},
        {"params": sigma, "weight_decay": 0.0, "lr_factor": SIGMA_LR_FACTOR},
    ]
    return AdamW([g for g in groups if g["params"]], lr=train.lr, betas=(0.9, 0.99), fused=True)
