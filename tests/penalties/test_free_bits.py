"""Free bits: what is charged, by hand; what gets no gradient; and nothing where they are off."""

import pytest
import torch

from civae_core.model import DiagonalNormal, ModelOutput, PixelNormal
from civae_core.objective import negative_elbo
from civae_core.penalties.free_bits import charged_kl

KL = torch.tensor([[0.0, 1.0, 0.4], [0.2, 3.0, 0.6]])


def test_each_dimension_is_charged_its_mean_or_the_floor() -> None:
    assert charged_kl(KL, 0.5).item() == pytest.approx(0.5 + 2.0 + 0.5)
    assert charged_kl(KL, 0.0).item() == pytest.approx(0.1 + 2.0 + 0.5)
    assert charged_kl(KL, 0.5, torch.tensor([0.0, 2.0])).item() == pytest.approx(0.5 + 3.0 + 0.6)


def test_a_dimension_below_the_floor_gets_no_gradient() -> None:
    kl = KL.clone().requires_grad_()
    charged_kl(kl, 0.45).backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]


def test_in_the_bound_only_the_charge_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(2, 5, 4, generator=generator)
    posterior, prior = DiagonalNormal(mean, log_std), DiagonalNormal(0 * mean, 0 * mean)
    y = torch.rand(5, 1, 2, 2, generator=generator)
    output = ModelOutput(posterior, prior, PixelNormal(0 * y, torch.zeros(1, 1, 1)), None)
    weights = torch.rand(5, generator=generator)
    off, tiny, on = (negative_elbo(y, output, 2.0, weights, free_bits=f) for f in (0.0, 1e-9, 50.0))
    torch.testing.assert_close(tiny.loss, off.loss)
    assert (on.kl.item(), on.reconstruction.item()) == (off.kl.item(), off.reconstruction.item())
    nll = (output.likelihood.negative_log_likelihood(y) * weights).mean()
    assert on.loss.item() == pytest.approx(nll.item() + 2.0 * 4 * 50.0, rel=1e-6)
