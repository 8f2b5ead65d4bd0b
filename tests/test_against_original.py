"""benchmarks/against_original.py: who caught up when, what its goals say, and that its page shows its figures."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from shown import ROOT

PAGE = ROOT / "docs" / "against-original.md"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.against_original")


def curve(*points: tuple[float, float, float | None]) -> dict[str, Any]:
    """Points of seconds, PSNR and effect error."""
    made = [
        {
            "images": round(100 * seconds),
            "seconds": seconds,
            "gflop": 2.0 * seconds,
            "mse": 10 ** (-psnr / 10),
            "psnr": psnr,
            "relative_effect_error": effect,
        }
        for seconds, psnr, effect in points
    ]
    return {"gflop_per_image": 1.0, "parameters": 10, "seconds": points[-1][0], "points": made}


def summary(
    script: Any, tmp_path: Path, asked: dict[str, int] | None = None, **curves: dict[str, Any]
) -> dict[str, Any]:
    for name, values in curves.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    images = {name: values["points"][-1]["images"] for name, values in curves.items()} | (asked or {})
    numbers: dict[str, Any] = script.summarised(tmp_path, {"data": "faces", "images": images})
    return numbers


def test_goals_are_judged_by_time_and_by_db(script: Any, tmp_path: Path) -> None:
    original = curve((10, 15, 1.0), (50, 18, 0.9), (100, 20, 0.95))
    ours = curve((5, 16, 0.99), (15, 19, 0.5), (40, 21, 0.4), (99, 22, 0.3), (120, 30, 0.2))
    numbers = summary(
        script, tmp_path, original=original, ours=ours, short=curve((10, 18, 0.7), (21, 20.5, 0.6))
    )
    mse, effect, best = numbers["caught_up"]
    # Goals are of the original's last, and its best is told too; of equal use is only what is at most that.
    assert (effect["of"], effect["goal"], effect["original"]["seconds"]) == ("last", 0.95, 50)
    assert (best["of"], best["goal"], best["seconds"], best["ours"]["seconds"]) == ("best", 0.9, 50, 15)
    assert (effect["ours"]["seconds"], effect["short"]["seconds"]) == (15, 10)
    assert (mse["original"]["seconds"], mse["ours"]["seconds"], mse["short"]["seconds"]) == (100, 40, 21)
    assert [goal["came_to"] for goal in numbers["goals"]] == [
        "21.0%",
        "10.0%",
        "+2.00 dB, ours after 99 s and the original after 100 s",
    ]
    assert [goal["reached"] for goal in numbers["goals"]] == [False, True, False]
    # The better of ours by then, and nothing of what it came to later.
    assert [(row["original"]["seconds"], row["ours"]["seconds"]) for row in numbers["same_time"]] == [
        (10, 10),
        (50, 40),
        (100, 99),
    ]
    early = summary(script, tmp_path, original=original, ours=curve((5, 16, 0.9)), short=curve((9, 18, 0.9)))
    assert early["goals"][-1]["reached"] is None and "**open**" in script.as_markdown(early)
    text = script.as_markdown(numbers)
    assert "| 21.0% | **missed** |" in text and "| 10.0% | reached |" in text


def test_without_truth_there_is_no_effect_error_and_what_is_not_reached_is_said(
    script: Any, tmp_path: Path
) -> None:
    original, worse = curve((10, 20, None)), curve((1, 12, None), (9, 15, None))
    numbers = summary(script, tmp_path, original=original, ours=worse, short=worse)
    assert [row["measure"] for row in numbers["caught_up"]] == ["mse"]
    assert [(goal["came_to"], goal["reached"]) for goal in numbers["goals"]] == [
        ("never as good", False),
        ("-5.00 dB, ours after 9 s and the original after 10 s", False),
    ]
    assert "| not reached | – |" in script.as_markdown(numbers)
    width, height = script.as_figure(numbers).size
    assert width > height


def test_a_training_that_goes_on_is_said_to(script: Any, tmp_path: Path) -> None:
    some = curve((10, 20, None))
    done = summary(script, tmp_path, original=some, ours=some, short=some)
    assert "Not finished" not in script.as_markdown(done)
    amid = summary(script, tmp_path, {"ours": 4000}, original=some, ours=some, short=some)
    assert script.as_markdown(amid).count("Not finished") == 1
    assert "**Not finished:** ours has seen 1,000 of 4,000 images." in script.as_markdown(amid)


def test_tables_go_between_the_marks_of_their_name(script: Any) -> None:
    page = "a\n<!-- measured: one -->\nold\n<!-- end: one -->\nb\n<!-- measured: two -->\n<!-- end: two -->\n"
    filled = script.into_page(page, "one", "new")
    assert filled.startswith("a\n<!-- measured: one -->\n\nnew\n<!-- end: one -->\nb\n")
    assert filled.endswith("<!-- measured: two -->\n<!-- end: two -->\n") and "old" not in filled
    assert script.into_page(filled, "one", "new") == filled
    assert script.into_page(script.into_page("", "one", "old"), "one", "new").count("new") == 1
    with pytest.raises(SystemExit, match="no markers for the tables: <!-- measured: one -->"):
        script.into_page("somebody's page", "one", "new")


def test_ours_is_scored_often_before_a_fifth_of_its_time(script: Any) -> None:
    assert script.POINTS.keys() == script.FILES.keys()
    for shares in script.POINTS.values():
        assert list(shares) == sorted(set(shares)) and shares[-1] == 1.0
    assert sum(share <= script.GOAL_SHARE for share in script.POINTS["ours"]) >= 10


def test_the_page_shows_the_figures_that_were_measured(script: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"<!-- measured: (\S+) -->", page)
    assert names
    for name in names:
        numbers = json.loads((PAGE.parent / f"{name}.json").read_text(encoding="utf-8"))
        assert numbers["caught_up"] == script.caught_up(numbers), "the file is of its own points"
        assert script.into_page(page, name, script.as_markdown(numbers)) == page, name
