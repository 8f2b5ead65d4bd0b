"""Batches for a small learner, and its state in one dictionary."""

from collections.abc import Callable

import torch
from torch import Tensor

from civae_core.data.batches import Batch
from civae_core.training.learner import Learner

COUNT, SIZE, LATENT = 6, 16, 4
LEVERS = {"adversary": 5.0, "hsic": 50.0, "arm_balance": 0.5, "reencode": 0.1, "guidance": 10.0}
MakeLearner = Callable[..., Learner]


def batch(seed: int = 0, device: str = "cpu", count: int = COUNT) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    y_BCHW = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    labels_BA = torch.randint(0, 2, (count, 2), generator=generator).float()
    age_B1 = 40 + 10 * torch.randn(count, 1, generator=generator)
    noise_BZ = torch.randn(count, LATENT, generator=generator)
    made = Batch(
        y_BCHW, torch.cat([labels_BA[:, :1], age_B1], 1), labels_BA[:, 1:], torch.ones(count), noise_BZ
    )
    return Batch(**{name: values.to(device) for name, values in vars(made).items()})


def train(learner: Learner, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        learner.step(batch(step), step * COUNT)


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Copies of weights, buffers and optimiser moments by name."""
    tensors = dict(learner.model.state_dict())
    for name, parameter in learner.model.named_parameters():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def gradients_of(learner: Learner) -> dict[str, Tensor]:
    """Copies of the gradients by name; zeros where there are none."""
    found = {}
    for name, parameter in learner.named_parameters().items():
        gradient = parameter.grad
        found[name] = torch.zeros_like(parameter) if gradient is None else gradient.clone()
    return found


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def assert_near(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Assert equality up to the order of sums, relative to the largest entry of each tensor."""
    assert a.keys() == b.keys()
    for name, values in a.items():
        difference = (values - b[name]).abs().max()
        assert difference <= 2e-5 * max(float(values.abs().max()), 1e-3), name
