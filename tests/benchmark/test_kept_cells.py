"""Cells of benchmarks kept in one file: each once, and a table that says what was not trained."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # as `python -m benchmarks.…` has it

from benchmarks.kept_cells import Kept, cells_of, merged, stacked, table, upright  # noqa: E402
from civae_core.benchmark.load import load_benchmark  # noqa: E402

STACKED = ["cvae", "original", "x", "xt", "weights", "layers-weighted", "layers", "best"]


def entry(error: float, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "relative_effect_error": {"mean": error},
        "effectiveness": {"Young": {"accuracy": {"mean": 0.5}}},
        "ate_error": 0.125,
        "leak": {"Male": {"mean": -0.75}, "Beard": {"mean": 0.5}},
        "leak_accuracy": {"Male": {"mean": -0.2}, "Smiling": {"mean": 0.1}, "Beard": {"mean": -0.005}},
        "worst_leak": {"attribute": "Male", "mean": -0.25},
        "subgroups": {"relative_effect_error": {"worst": {"mean": 1.25}}},
        "mse_off_effect": {"mean": 0.001},
        "psnr_reconstruction": {"mean": 25.0},
        "balance": {"difference": -0.01},
    }


def test_a_cell_takes_the_place_of_the_same_seed_alone(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "overlap-0.2" / "hsic-seed1"
    run.mkdir(parents=True)
    by_group = {"cate_error": {"mean": 0.12349, "groups": [{"group": "Male = 1"}]}}
    methods = {"copy": {}, "ours": entry(0.31239, 7) | by_group | {"bits_per_dimension": 5.0}, "truth": {}}
    (run / "evaluation.json").write_text(json.dumps({"methods": methods}))
    found = cells_of(tmp_path)
    assert [e["seed"] for e in found["overlap-0.2"]["hsic"]] == [1], "by the folder's name"
    assert found["overlap-0.2"]["hsic"][0]["relative_effect_error"] == {"mean": 0.3124}
    assert found["overlap-0.2"]["hsic"][0]["cate_error"] == {"mean": 0.1235}
    assert "bits_per_dimension" not in found["overlap-0.2"]["hsic"][0]
    old: Kept = {"overlap-0.2": {"hsic": [entry(0.1, 0), entry(0.9, 1), entry(0.2, 2)], "x": [entry(0.4, 0)]}}
    errors = [e["relative_effect_error"]["mean"] for e in merged(old, found)["overlap-0.2"]["hsic"]]
    assert errors == [0.1, 0.3124, 0.2]
    assert merged(old, found)["overlap-0.2"]["x"] == old["overlap-0.2"]["x"]


def test_the_table_says_what_is_missing_and_how_seeds_vary() -> None:
    kept: Kept = {"overlap-0.5": {"x": [entry(0.4, 0), entry(0.5, 1)]}, "overlap-0.2": {"x": [entry(1.0, 0)]}}
    head, _, row = table(kept, ["cvae", "x"], ["overlap-1.0", "overlap-0.5", "overlap-0.2"]).splitlines()
    assert head.startswith("| | overlap 1 | .5 | .2 | as intended, .2 |")
    assert row == "| `x` | – | .450 ± .071 | 1.000 | .50 | .25 | 1.25 | .0010 | 25.0 |"


def test_upright_a_measure_has_a_row_and_what_was_trained_a_column() -> None:
    kept: Kept = {"overlap-1.0": {"x": [entry(0.4, 0)]}, "overlap-0.5": {"x": [entry(0.4, 0), entry(0.6, 1)]}}
    methods, datasets = ["cvae", "x"], ["overlap-1.0", "overlap-0.5"]
    head, _, *rows = upright(kept, methods, datasets, ["Male", "Smiling"]).splitlines()
    assert head == "| overlap | x, 1 (1) | x, .5 (2) |"
    assert rows[0] == "| relative effect error | .400 | .500 ± .141 |"
    assert "| largest leak of a run (logit) | .75 | .75 ± .00 |" in rows
    assert "| leak into Male (logit) | −.75 | −.75 ± .00 |" in rows
    assert "| covariate seen right, largest loss (points) | −20.0 | −20.0 ± .0 |" in rows
    assert "| other attribute, the same | −.5 | −.5 ± .0 |" in rows
    assert "| AUC of the treatment gained from z | −.01 | −.01 ± .00 |" in rows


def test_stacked_an_overlap_and_a_measure_have_a_row_and_each_method_a_column() -> None:
    kept: Kept = {"overlap-1.0": {"x": [entry(0.4, 0)]}, "overlap-0.5": {"x": [entry(0.4, 0), entry(0.6, 1)]}}
    shown = stacked(kept, ["x", "cvae"], ["overlap-1.0", "overlap-0.5"], ["Male", "Smiling"])
    head, _, *rows = shown.splitlines()
    assert head == "| overlap | | x | cvae |"
    assert rows[0] == "| 1 | relative effect error | .400 | – |"
    assert rows[1] == "|  | average effect error | .125 | – |"
    assert rows[len(rows) // 2] == "| .5 | relative effect error | .500 ± .141 | – |"


def test_what_is_kept_is_the_table_that_is_shown() -> None:
    page = (ROOT / "docs" / "levers.md").read_text(encoding="utf-8")
    datasets = ["overlap-1.0", "overlap-0.5", "overlap-0.2"]
    kept = json.loads((ROOT / "docs" / "levers.json").read_text(encoding="utf-8"))
    methods = load_benchmark(ROOT / "configs" / "levers.yml").methods
    assert table(kept, list(methods), datasets) in page
    assert stacked(kept, STACKED, datasets, methods["best"].data.covariates) in page
    kept = json.loads((ROOT / "docs" / "levers-older.json").read_text(encoding="utf-8"))
    assert table(kept, list(methods), datasets) in page
    kept = json.loads((ROOT / "docs" / "headline.json").read_text(encoding="utf-8"))
    methods = load_benchmark(ROOT / "configs" / "headline.yml").methods
    covariates = methods["ours"].data.covariates
    assert upright(kept, list(methods), datasets, covariates) in page
