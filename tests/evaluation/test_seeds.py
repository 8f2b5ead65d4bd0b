"""Runs of one method with several seeds, summarised."""

import json

import numpy as np
import pytest

from civae_core.evaluation.seeds import summarise
from civae_core.evaluation.values import as_value


def test_mean_and_spread_over_runs_agree_with_numpy() -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 3))
    entries = [{"error": {"mean": m, "lo": lo, "hi": hi}, "ate": m * 2} for m, lo, hi in numbers.tolist()]
    found = summarise(entries)
    assert found["error"]["mean"] == pytest.approx(numbers[:, 0].mean())
    assert found["error"]["sd"] == pytest.approx(numbers[:, 0].std(ddof=1))
    assert (found["error"]["lo"], found["error"]["hi"]) == pytest.approx(tuple(numbers[:, 1:].mean(0)))
    assert found["error"]["runs"] == numbers[:, 0].tolist()
    assert found["ate"]["sd"] == pytest.approx(2 * numbers[:, 0].std(ddof=1))
    value = as_value(found["error"])
    assert value is not None and value.runs == 4 and value.sd == found["error"]["sd"]


def test_one_run_has_no_spread_and_keeps_its_interval() -> None:
    found = summarise([{"error": {"mean": 0.5, "lo": 0.25, "hi": 0.75}}])
    assert found == {"error": {"mean": 0.5, "runs": [0.5], "lo": 0.25, "hi": 0.75}}


def test_nested_entries_counts_and_words() -> None:
    entries = [
        {
            "effectiveness": {"Young": {"accuracy": {"mean": a, "lo": a, "hi": a}}},
            "realism": {"extractor": "scorer 1", "n": 30, "fid": a},
            "reference": word,
        }
        for a, word in ((0.5, "truth"), (1.0, "input"))
    ]
    found = summarise(entries)
    assert found["effectiveness"]["Young"]["accuracy"]["mean"] == 0.75
    assert found["realism"]["n"] == 30 and found["realism"]["extractor"] == "scorer 1"
    assert found["realism"]["fid"]["runs"] == [0.5, 1.0]
    assert "reference" not in found  # the runs disagree


def test_counts_in_which_runs_differ_are_no_measures() -> None:
    entries = [
        {"subgroups": {"leak": {"worst": {"group": name, "n": n, "mean": 0.5}}}, "f1": f1, "trivial": True}
        for name, n, f1 in (("Hat=0", 40, 1.0), ("Hat=1", 60, 0.0))
    ]
    for runs in (entries, json.loads(json.dumps(entries))):
        found = summarise(runs)
        worst = found["subgroups"]["leak"]["worst"]
        assert worst == {"group": "Hat=0 or Hat=1", "mean": 0.5, "runs": [0.5, 0.5], "sd": 0.0}
        assert found["f1"]["runs"] == [1.0, 0.0], "a measure, though its values are whole"
        assert found["trivial"] is True


def test_a_number_that_some_runs_lack_is_that_of_the_others() -> None:
    found = summarise([{"a": 1.0, "b": {"c": 2.5}}, {"a": None}, {"a": 3.0}])
    assert found["a"]["runs"] == [1.0, 3.0] and found["b"]["c"]["runs"] == [2.5]


def test_worst_leaks_of_different_attributes_do_not_cancel() -> None:
    one = {"attribute": "Male", "mean": 0.5, "lo": 0.25, "hi": 0.75}
    other = {"attribute": "Smiling", "mean": -0.5, "lo": -1.0, "hi": -0.25}
    found = summarise([{"worst_leak": one}, {"worst_leak": other}])["worst_leak"]
    assert (found["mean"], found["lo"], found["hi"]) == (0.5, 0.25, 0.875)
    assert found["attribute"] == "Male or Smiling"


def test_worst_leaks_of_one_attribute_with_both_signs_do_not_cancel() -> None:
    def run(leak: float) -> dict[str, object]:
        worst = {"attribute": "Male", "mean": leak, "lo": leak - 0.05, "hi": leak + 0.05}
        row = {**worst, "group": "Hat = 1", "n": 30}
        return {"worst_leak": worst, "subgroups": {"leak": {"worst": row, "best": row, "groups": [row]}}}

    found = summarise([run(leak) for leak in (0.12, -0.11, 0.10)])
    leaks = found["subgroups"]["leak"]
    for entry in (found["worst_leak"], leaks["worst"], leaks["best"], leaks["groups"][0]):
        assert entry["attribute"] == "Male" and entry["mean"] == pytest.approx(0.11)
        assert entry["sd"] == pytest.approx(0.01)
        assert (entry["lo"], entry["hi"]) == pytest.approx((0.06, 0.16))
    same = summarise([run(-0.12), run(-0.10)])["worst_leak"]
    assert same["mean"] == pytest.approx(-0.11), "a sign that all runs share is kept"
    plain = summarise([{"leak": {"Male": {"mean": leak}}} for leak in (0.12, -0.12)])["leak"]["Male"]
    assert plain["mean"] == 0.0, "of an attribute that was not chosen, the sign means something"


def test_groups_are_matched_by_name() -> None:
    def run(*rows: tuple[str, float]) -> dict[str, object]:
        groups = [{"group": name, "n": 5, "mean": mean} for name, mean in rows]
        return {"subgroups": {"error": {"worst": groups[0], "groups": groups}}}

    found = summarise([run(("a", 3.0), ("b", 1.0), ("c", 0.5)), run(("b", 2.0), ("a", 1.0))])
    groups = found["subgroups"]["error"]["groups"]
    assert [(g["group"], g["n"], g["mean"]) for g in groups] == [("a", 5, 2.0), ("b", 5, 1.5)]
    assert found["subgroups"]["error"]["worst"]["group"] == "a or b"
