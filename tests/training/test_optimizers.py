"""Optimisers without PyTorch's compiler: what they do is what PyTorch's do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from civae_core.training.optimizers import Adam, AdamW


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda groups: Adam(groups, 5e-3), lambda groups: torch.optim.Adam(groups, 5e-3)),
        (lambda groups: AdamW(groups, fused=True), lambda groups: torch.optim.AdamW(groups, fused=True)),
    ],
    ids=["Adam", "fused AdamW"],
)
def test_they_step_to_the_same_bits(
    ours: Callable[..., torch.optim.Optimizer], torchs: Callable[..., torch.optim.Optimizer]
) -> None:
    generator = torch.Generator().manual_seed(0)
    start_PQ, inputs_SBQ = (torch.randn(*shape, generator=generator) for shape in ((3, 5), (4, 8, 5)))
    ends = []
    for make in (ours, torchs):
        weight_PQ, bias_P = nn.Parameter(start_PQ.clone()), nn.Parameter(torch.zeros(3))
        optimizer = make([{"params": [weight_PQ], "weight_decay": 0.1}, {"params": [bias_P]}])
        for inputs_BQ in inputs_SBQ:
            (inputs_BQ @ weight_PQ.T + bias_P).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert weight_PQ.grad is None
        ends.append((weight_PQ, bias_P))
    assert not torch.equal(ends[0][0], start_PQ)
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
