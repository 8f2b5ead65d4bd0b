"""Plots of the report: what is drawn where, read off the pixels."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from civae_core.figures.calibration import Reliability, reliability_plot
from civae_core.figures.overlap import propensity_histogram
from civae_core.figures.pictures import Picture, at_most
from civae_core.figures.plots import HIGHER, LOWER, plain
from civae_core.figures.ridges import Arm, RidgePanel, ridge_plot
from civae_core.figures.strips import sweep_sheet
from civae_core.figures.text import WARNING_INK

pytestmark = pytest.mark.usefixtures("in_full")


def pixels(picture: Image.Image, colour: str) -> np.ndarray:
    """Rows and columns [2, n] of the pixels of one colour."""
    wanted = np.round(255 * np.array(to_rgb(colour)))
    return np.array(np.nonzero((np.abs(np.asarray(picture).astype(float) - wanted) < 2).all(axis=2)))


def overlap(ones: list[int], zeros: list[int]) -> dict[str, object]:
    edges = np.linspace(0, 1, len(ones) + 1).tolist()
    return {"treatment": "Hat$", "histogram_edges": edges, "histogram": {"1": ones, "0": zeros}}


def test_propensities_stand_where_they_are_and_each_arm_on_its_side() -> None:
    picture = propensity_histogram(overlap([0, 0, 0, 8], [5, 0, 0, 0]), (0.05, 0.95))
    (high_rows, high_columns), (low_rows, low_columns) = pixels(picture, HIGHER), pixels(picture, LOWER)
    legend = 40  # its swatches are drawn above the axes
    assert high_columns[high_rows > legend].min() > 0.6 * picture.width
    assert low_columns[low_rows > legend].max() < 0.4 * picture.width
    assert high_rows[high_rows > legend].max() <= low_rows[low_rows > legend].min()


def test_histograms_are_shares_of_their_own_arm() -> None:
    few, many = (propensity_histogram(overlap([count, 3 * count], [1, 1])) for count in (2, 2000))
    (rows, columns), (other_rows, other_columns) = pixels(few, HIGHER), pixels(many, HIGHER)
    inside, other_inside = rows > 40, other_rows > 40
    assert rows[inside].min() == other_rows[other_inside].min() and len(columns[inside]) == len(
        other_columns[other_inside]
    )


def arm(label: str, mean: float, prior: float = 0.0) -> Arm:
    return Arm(
        label, "the photograph", torch.zeros(3, 8, 8), torch.tensor([0.0, mean]), torch.full((2,), 0.2),
        torch.tensor([0.0, prior]), torch.ones(2),
    )  # fmt: skip


def test_ridges_stand_at_their_means_in_units_of_the_lower_prior() -> None:
    def places(panel: RidgePanel) -> tuple[float, float]:
        picture = ridge_plot([panel], [1], ["3 nats"])
        found = []
        for colour in (LOWER, HIGHER):
            rows, columns = pixels(picture, colour)
            # The curve of the only ridge: below the images and above the axis and the legend.
            inside = (rows > picture.height * 0.55) & (rows < picture.height * 0.72)
            found.append(float(np.median(columns[inside])))
        return found[0], found[1]

    left, right = places(RidgePanel("subject", arm("t = 0", -2.0), arm("t = 1", 2.0)))
    assert left < right - 50
    right, left = places(RidgePanel("subject", arm("t = 0", 2.0), arm("t = 1", -2.0)))
    assert left < right - 50
    moved = RidgePanel("subject", arm("t = 0", 8.0, prior=10.0), arm("t = 1", 12.0, prior=10.0))
    still = RidgePanel("subject", arm("t = 0", -2.0), arm("t = 1", 2.0))
    assert ridge_plot([moved], [1], [""]).tobytes() == ridge_plot([still], [1], [""]).tobytes()
    assert ridge_plot([still, still], [0, 1], ["", ""]).width >= 880


def reliable(frequency: float, count: int) -> Reliability:
    return Reliability("Hat", [0.55], [0.55], [frequency], [(frequency, frequency)], [count], 0.1)


def test_reliability_rises_with_the_share_and_sparse_bins_are_grey() -> None:
    low, high = (
        pixels(reliability_plot([reliable(0.2, 50)]), LOWER),
        pixels(reliability_plot([reliable(0.9, 50)]), LOWER),
    )
    assert high[0].mean() < low[0].mean() - 50
    assert high[1].mean() == pytest.approx(low[1].mean(), abs=2)
    assert pixels(reliability_plot([reliable(0.9, 9)]), LOWER).size == 0
    assert reliability_plot([reliable(0.5, 50)] * 4).height > reliability_plot([reliable(0.5, 50)] * 3).height


def test_a_sweep_of_several_subjects_marks_whole_columns() -> None:
    images = torch.zeros(2, 3, 3, 32, 32)
    sheet = np.asarray(sweep_sheet(images, ["a", "b", "c"], [False, False, True], ["one", "two"]))
    single = np.asarray(sweep_sheet(images[:1], ["a", "b", "c"], [False, False, True], ["one"]))
    marked, once = ((s == WARNING_INK).all(axis=2) for s in (sheet, single))
    black = np.nonzero((sheet == 0).all(axis=2).sum(axis=0) >= 2 * 128)[
        0
    ]  # columns that cross both rows of cells
    assert len(black) == 3 * 128
    last = black[2 * 128]
    frames = marked[:, last - 5 :].sum()
    assert frames == pytest.approx(2 * once[:, last - 5 :].sum(), rel=0.2) and frames > 500
    with pytest.raises(ValueError, match="1 row labels for 2 rows"):
        sweep_sheet(images, ["a", "b", "c"], None, ["one"])


def test_names_are_safe_in_plots_and_files() -> None:
    assert plain("a$b$") == r"a\$b\$"
    assert Picture("sweep_Hair/Colour", "t", "c", Image.new("RGB", (1, 1))).name == "sweep_Hair-Colour"


def test_large_images_are_averaged_down_and_small_ones_kept() -> None:
    images = torch.rand(2, 3, 256, 256)
    small = at_most(images, 128)
    assert small.shape == (2, 3, 128, 128)
    torch.testing.assert_close(small[0, 0, 3, 5], images[0, 0, 6:8, 10:12].mean())
    assert at_most(small, 128) is small
