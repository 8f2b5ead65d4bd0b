"""The figure over overlaps: which lines, which panels, and names that do not collide."""

from typing import Any

import pytest

from civae_core.benchmark.figure import overlap_figure, spread_apart


def results(**measures: tuple[float, float]) -> dict[str, Any]:
    """Two overlaps with the given numbers at each."""

    def entry(at: int) -> dict[str, Any]:
        return {
            key: {"mean": v[at], "sd": 0.1, "lo": v[at] - 0.2, "hi": v[at] + 0.3}
            for key, v in measures.items()
        }

    names = ("hard", "easy")
    copies = {"relative_effect_error": {"mean": 1.0}, "worst_leak": {"mean": 0.625}}
    copies = {key: copies[key] for key in measures}
    return {
        "data": [
            {"name": name, "overlap": overlap, "balance": {"Young": {"share_extreme": share}}}
            for name, overlap, share in zip(names, (0.25, 1.0), (0.5, 0.0), strict=True)
        ],
        "summary": {
            name: {"copy": copies, "truth": entry(i), "ours": entry(i), "x": entry(i)}
            for i, name in enumerate(names)
        },
    }


def test_each_method_is_a_line_from_the_most_overlap_to_the_least() -> None:
    figure = overlap_figure(results(relative_effect_error=(0.5, 0.25)))
    assert figure is not None
    (axes,) = figure.axes
    assert [list(bars[0].get_ydata()) for bars in axes.containers] == [[0.25, 0.5]] * 2
    x = [list(bars[0].get_xdata()) for bars in axes.containers]
    assert all(abs(at - want) < 0.05 for line in x for at, want in zip(line, (1.0, 0.25), strict=True))
    assert {text.get_text() for text in axes.texts} == {"ours", "x", "returning the input unchanged"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\n[0 %]", "0.25\n[50 %]"]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]


def test_a_leak_is_a_second_panel_of_magnitudes() -> None:
    figure = overlap_figure(results(relative_effect_error=(0.5, 0.25), worst_leak=(-0.75, 0.5)))
    assert figure is not None
    leak = figure.axes[1]
    copies = [line.get_ydata().tolist() for line in leak.lines if line.get_linestyle() == "--"]
    assert copies == [[0.625, 0.625]]  # which is not 1 here: what the truth moves, a copy leaves
    assert list(leak.containers[0][0].get_ydata()) == [0.5, 0.75]
    band = leak.collections[-1].get_paths()[0].get_extents()
    assert band.ymax == pytest.approx(0.95)  # of −0.75 − 0.2
    crossing = overlap_figure(results(worst_leak=(-0.125, 0.125)))
    assert crossing is not None
    assert crossing.axes[0].collections[-1].get_paths()[0].get_extents().ymin == 0.0


def test_one_training_has_no_error_bars() -> None:
    found = results(relative_effect_error=(0.5, 0.25))
    with_bars = overlap_figure(found)
    for methods in found["summary"].values():
        for method in ("ours", "x"):
            del methods[method]["relative_effect_error"]["sd"]
    without = overlap_figure(found)
    assert with_bars is not None and without is not None
    assert [bars.has_yerr for bars in with_bars.axes[0].containers] == [True, True]
    assert [bars.has_yerr for bars in without.axes[0].containers] == [False, False]
    assert with_bars.texts[0].get_text().startswith("Bars: ± standard deviation over trainings. Bands")
    assert without.texts[0].get_text().startswith("One training each. Bands")


def test_without_two_overlaps_there_is_no_figure() -> None:
    found = results(relative_effect_error=(0.5, 0.25))
    assert overlap_figure({**found, "data": found["data"][:1]}) is None
    assert overlap_figure({**found, "summary": {"hard": {}, "easy": {}}}) is None
    only_copies = {name: {"copy": methods["copy"]} for name, methods in found["summary"].items()}
    assert overlap_figure({**found, "summary": only_copies}) is None


def test_names_lie_apart_and_move_as_little_as_they_must() -> None:
    assert spread_apart([0.1, 0.5], 0.1, 0, 1) == [0.1, 0.5]
    assert spread_apart([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])
    assert spread_apart([0.98, 0.99], 0.1, 0, 1) == pytest.approx([0.85, 0.95])
    assert spread_apart([0.0, 0.01, 0.02], 0.1, 0, 1) == pytest.approx([0.05, 0.15, 0.25])
    assert spread_apart([0.3, 0.42, 0.43], 0.1, 0, 1) == pytest.approx([0.2833, 0.3833, 0.4833], abs=1e-3)
