"""An evaluation of one image, as with `--limit 1`: numbers without intervals, wherever they are shown."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from civae_core.data import PreparedData
from civae_core.evaluation.evaluate import evaluate
from civae_core.evaluation.report import render_evaluation
from civae_core.evaluation.table import evaluation_tables
from civae_core.model.stored import StoredModel


def bounds(entry: Any) -> int:
    if not isinstance(entry, Mapping):
        return 0
    return sum(map(bounds, entry.values())) + len({"lo", "hi"} & set(entry))


def test_one_image_is_scored_without_intervals(
    faces: PreparedData, make_stored: Callable[..., StoredModel]
) -> None:
    models = [make_stored(path=f"run{seed}/checkpoints/step-1/model.safetensors") for seed in (0, 1)]
    for chosen in (models[:1], models):
        found = evaluate(chosen, faces, limit=1, pictures=False).numbers
        numbers = json.loads(json.dumps(found, allow_nan=False))
        assert numbers["n"] == 1 and bounds(numbers["methods"]) == 0
        assert numbers["methods"]["copy"]["relative_effect_error"] == {"mean": 1.0}
        console = Console(width=140, force_terminal=False)
        with console.capture() as shown:
            for table in evaluation_tables(numbers, 140):
                console.print(table)
        assert "relative effect error" in shown.get() and "[" not in shown.get()
        assert "<td>1.00</td>" in render_evaluation(numbers, [])
    assert bounds(evaluate(models[:1], faces, limit=2, pictures=False).numbers["methods"]) > 0
