"""The level of bootstrap intervals: their bounds are those quantiles of the resamples."""

import numpy as np
import torch

from civae_core.evaluation.bootstrap import RESAMPLES, bootstrap_ratio


def test_the_bounds_leave_a_fortieth_of_the_resamples_out_on_either_side() -> None:
    generator = torch.Generator().manual_seed(0)
    size_N = torch.rand(90, generator=generator, dtype=torch.float64) + 0.5
    error_N = size_N * 0.3 + 0.2 * torch.randn(90, generator=generator, dtype=torch.float64)
    drawn_RN = torch.randint(90, (RESAMPLES, 90), generator=torch.Generator().manual_seed(7)).numpy()
    ratio_R = error_N.numpy()[drawn_RN].sum(1) / size_N.numpy()[drawn_RN].sum(1)
    found = bootstrap_ratio(error_N, size_N, seed=7)
    np.testing.assert_allclose((found.lo, found.hi), np.quantile(ratio_R, (0.025, 0.975)), rtol=1e-12)
