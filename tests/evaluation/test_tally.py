"""The streaming tally: perfect and copied counterfactuals, and independence of the batch size."""

import json
import math

import pytest
import torch
from torch import Tensor

from civae_core.evaluation.asked import Answer, Asked
from civae_core.evaluation.metrics import mse
from civae_core.evaluation.tally import CounterfactualTally


def subjects(count: int = 12) -> tuple[Tensor, Tensor]:
    """8-bit images as floats, and the same with five rows brightened."""
    generator = torch.Generator().manual_seed(0)
    y_NCHW = torch.rand(count, 3, 16, 16, generator=generator)
    truth_NCHW = y_NCHW.clone()
    brighter_N1K1 = 0.4 * torch.rand(count, 1, 5, 1, generator=generator)
    truth_NCHW[:, :, 4:9] = (truth_NCHW[:, :, 4:9] + brighter_N1K1).clamp(0, 1)
    return (y_NCHW * 255).round() / 255, (truth_NCHW * 255).round() / 255


def tallied(
    y_NCHW: Tensor, estimate_NCHW: Tensor, truth_NCHW: Tensor, batch: int = 12
) -> CounterfactualTally:
    tally = CounterfactualTally()
    for rows in torch.arange(len(y_NCHW)).split(batch):
        halfway_NCHW = (y_NCHW + truth_NCHW)[rows] / 2
        add(tally, y_NCHW[rows], estimate_NCHW[rows], truth_NCHW[rows], halfway_NCHW)
    return tally


def add(tally: CounterfactualTally, y: Tensor, estimate: Tensor, truth: Tensor, mean: Tensor) -> None:
    t_BT = torch.zeros(len(y), 1)
    asked = Asked(torch.arange(len(y)), y, t_BT[:, :0], t_BT, t_BT + 1, torch.ones(len(y)), truth)
    tally.add(asked, Answer(estimate, mean))


def test_a_perfect_counterfactual_scores_zero() -> None:
    y_NCHW, truth_NCHW = subjects()
    found = tallied(y_NCHW, truth_NCHW, truth_NCHW).summary()
    assert found["relative_effect_error"] == {"mean": 0.0, "lo": 0.0, "hi": 0.0}
    assert found["relative_effect_error_mean_image"]["mean"] == pytest.approx(0.25), (
        "half the effect, at noise 0"
    )
    assert found["pehe"]["mean"] == 0.0
    json.dumps(found, allow_nan=False)


def test_copying_the_input_scores_exactly_one() -> None:
    y_NCHW, truth_NCHW = subjects()
    found = tallied(y_NCHW, y_NCHW, truth_NCHW).summary()
    assert found["relative_effect_error"] == {"mean": 1.0, "lo": 1.0, "hi": 1.0}
    assert found["mse_off_effect"]["mean"] == 0.0


def test_half_the_effect_scores_a_quarter() -> None:
    y_NCHW, truth_NCHW = subjects()
    found = tallied(y_NCHW, (y_NCHW + truth_NCHW) / 2, truth_NCHW).summary()
    assert found["relative_effect_error"]["mean"] == pytest.approx(0.25)


def test_batches_do_not_matter_and_pehe_is_the_root_of_the_mean_square() -> None:
    y_NCHW, truth_NCHW = subjects()
    noise_NCHW = torch.randn(truth_NCHW.shape, generator=torch.Generator().manual_seed(1))
    estimate_NCHW = (truth_NCHW + 0.1 * noise_NCHW).clamp(0, 1)
    whole, parts = (tallied(y_NCHW, estimate_NCHW, truth_NCHW, batch) for batch in (12, 5))
    assert whole.count == parts.count == 12
    for name, values_N in whole.per_image().items():
        assert torch.allclose(values_N, parts.per_image()[name])
    expected = math.sqrt(float(mse(estimate_NCHW, truth_NCHW).mean()))
    assert whole.summary()["pehe"]["mean"] == pytest.approx(expected)


def test_what_cannot_be_told_is_absent() -> None:
    y_NCHW, _ = subjects()
    found = tallied(y_NCHW, y_NCHW, y_NCHW).summary()
    assert "relative_effect_error" not in found
    assert found["psnr_counterfactual"]["mean"] == pytest.approx(100.0)
    with pytest.raises(ValueError, match="no counterfactuals"):
        CounterfactualTally().summary()


def test_a_method_without_a_mean_image_has_no_score_at_noise_0() -> None:
    y_NCHW, truth_NCHW = subjects()
    asked = Asked(torch.arange(12), y_NCHW, y_NCHW[:, 0, 0], y_NCHW, y_NCHW, torch.ones(12), truth_NCHW)
    tally = CounterfactualTally()
    tally.add(asked, Answer(truth_NCHW))
    found = tally.summary()
    assert found["relative_effect_error"]["mean"] == 0.0
    assert "relative_effect_error_mean_image" not in found


def test_images_smaller_than_the_window_have_no_ssim() -> None:
    y_NCHW, truth_NCHW = subjects()
    found = tallied(y_NCHW[..., :8, :8], truth_NCHW[..., :8, :8], truth_NCHW[..., :8, :8]).summary()
    assert "ssim_counterfactual" not in found and found["relative_effect_error"]["mean"] == 0.0
