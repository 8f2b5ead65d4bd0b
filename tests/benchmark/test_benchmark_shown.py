"""A benchmark's tables and what its page says of methods."""

from typing import Any

import pytest
from rich.console import Console

from civae_core.benchmark.report import meaning_of
from civae_core.benchmark.table import benchmark_tables

METHODS = ("copy", "cvae", "original", "ours", "xt", "x", "truth")
OVER_RUNS = {"sd": 0.01, "runs": [0.24, 0.26]}


def results(**more: Any) -> dict[str, Any]:
    entry = {
        "relative_effect_error": {"mean": 0.25, **more},
        "mse_off_effect": {"mean": 0.0025, **more},
    }
    best = {**entry, "relative_effect_error": {"mean": 0.15, **more}}
    return {
        "data": [{"name": "faces", "asked": {"n": 30, "split": "test"}}],
        "summary": {"faces": {name: best if name == "xt" else entry for name in METHODS}},
    }


def shown(found: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    lines = []
    for table in benchmark_tables(found, width):
        with console.capture() as capture:
            console.print(table)
        lines.append(capture.get())
    return lines


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_number_breaks_and_every_method_stands_in_one_table(width: int) -> None:
    tables = shown(results(**OVER_RUNS), width)
    text = "\n".join(tables)
    assert text.count("0.15 ± 0.01") == 1 and text.count("0.25 ± 0.01") == len(METHODS) - 1
    assert text.count("0.00250 ± 0.01000") == len(METHODS)
    heads = [table.splitlines()[1].split()[1:] for table in tables]
    assert [name for names in heads for name in names] == list(METHODS)
    sizes = [len(names) for names in heads]
    assert max(sizes) - min(sizes) <= 1
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count(" over runs") == 1


def test_numbers_of_one_run_take_less_room_and_no_legend_of_runs() -> None:
    assert len(shown(results(), 100)) == 1 < len(shown(results(**OVER_RUNS), 100))
    assert "over runs" not in "".join(shown(results(), 100))


def test_a_methods_meaning_comes_from_its_settings() -> None:
    def config(objective: str, prior: str = "xt", weights: str = "none") -> dict[str, Any]:
        return {"objective": objective, "model": {"prior": prior}, "loss": {"weights": weights}}

    assert meaning_of(config("cvae")) == "the same network with the prior N(0, I)"
    assert "inference" in meaning_of(config("original"))
    assert meaning_of(config("intact", "x")).startswith("balanced prior p(z|x), no weights")
    assert meaning_of(config("intact", weights="inverse")).startswith("learned prior p(z|x,t), inverse")
