"""Distances agree with geometry, ramps with their ends."""

import pytest
import torch

from civae_core.synthetic import shapes


def points(*pairs: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor(pairs)
    return table[:, 0], table[:, 1]


def test_ellipse_is_exact_on_its_edge_and_signed() -> None:
    angle = torch.linspace(0, 6.28, 50)
    assert shapes.ellipse(0.3 * angle.cos(), 0.1 * angle.sin(), 0.3, 0.1).abs().max() < 1e-6
    inside_and_out = shapes.ellipse(*points((0.0, 0.0), (0.28, 0.0), (0.32, 0.0), (0.0, 0.12)), 0.3, 0.1)
    assert inside_and_out[0] <= 0
    assert inside_and_out[1:].tolist() == pytest.approx([-0.02, 0.02, 0.02], abs=1e-3)


def test_ellipse_of_equal_radii_is_a_circle() -> None:
    u, v = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shapes.ellipse(u, v, 0.5, 0.5), (u * u + v * v).sqrt() - 0.5)


def test_segment_measures_to_its_ends_and_its_side() -> None:
    u, v = points((0.5, 0.2), (-0.3, 0.4), (1.3, -0.4))
    assert shapes.segment(u, v, (0.0, 0.0), (1.0, 0.0)).tolist() == pytest.approx([0.2, 0.5, 0.5])


def test_rounded_box_rounds_its_corners() -> None:
    u, v = points((0.0, 0.3), (0.5, 0.0), (0.4, 0.2), (0.0, 0.0))
    got = shapes.rounded_box(u, v, 0.4, 0.2, 0.1).tolist()
    assert got == pytest.approx([0.1, 0.1, 0.1 * (2**0.5 - 1), -0.2], abs=1e-6)


def test_dome_has_straight_walls_below_its_arch() -> None:
    u, v = points((0.5, 0.0), (0.5, 7.0), (0.0, -0.4), (0.6, 3.0))
    assert shapes.dome(u, v, 0.5, 0.4).tolist() == pytest.approx([0.0, 0.0, 0.0, 0.1], abs=1e-6)


def test_smooth_union_never_shrinks_and_meets_the_parts_far_away() -> None:
    first, second = torch.tensor([-0.1, 0.3, 0.0, 0.02]), torch.tensor([0.5, -0.2, 0.0, 0.0])
    union = shapes.smooth_union(first, second, 0.1)
    assert (union <= torch.minimum(first, second)).all()
    assert torch.equal(union[:2], torch.minimum(first, second)[:2])
    assert union[2] == pytest.approx(-0.025)


def test_coverage_is_a_ramp_of_one_pixel() -> None:
    distance = torch.tensor([-1.0, -0.05, 0.0, 0.05, 1.0])
    assert shapes.coverage(distance, 0.1).tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    assert shapes.coverage(distance, 0.2).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_bumps_steps_and_waves_reach_their_bounds() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 1.5])
    assert shapes.soft(x, 1.0).tolist() == pytest.approx([1.0, 0.5625, 0.0, 0.0])
    assert shapes.smoothstep(x, 0.5, 1.5).tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0])
    assert shapes.triangle_wave(torch.tensor([0.0, 0.25, 0.5, 1.0, -0.5])).tolist() == [
        1.0,
        0.0,
        -1.0,
        1.0,
        -1.0,
    ]
